"""AsyncOpenAI, a task a prompt behind a semaphore, rows appended as they come: the script most people have."""

import asyncio
import json
import sys

from openai import AsyncOpenAI


async def main(prompts: str, url: str, out: str, concurrency: int) -> None:
    """Ask all prompts."""
    limit = asyncio.Semaphore(concurrency)
    client = AsyncOpenAI(base_url=url, api_key="none")
    with open(out, "a", encoding="utf-8") as file:

        async def ask(prompt: str) -> None:
            messages = [{"role": "user", "content": prompt}]
            async with limit:
                answered = await client.chat.completions.create(model="m", messages=messages)
            messages.append({"role": "assistant", "content": answered.choices[0].message.content})
            file.write(json.dumps({"messages": messages}) + "\n")

        with open(prompts, encoding="utf-8") as lines:
            await asyncio.gather(*(ask(line.rstrip("\n")) for line in lines), return_exceptions=True)


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
