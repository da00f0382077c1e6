"""LiteLLM's acompletion, a task a prompt behind a semaphore, rows appended as they come."""

import asyncio
import json
import sys

import litellm


async def main(prompts: str, url: str, out: str, concurrency: int) -> None:
    """Ask all prompts."""
    limit = asyncio.Semaphore(concurrency)
    with open(out, "a", encoding="utf-8") as file:

        async def ask(prompt: str) -> None:
            messages = [{"role": "user", "content": prompt}]
            async with limit:
                answered = await litellm.acompletion(
                    model="openai/m", messages=messages, api_base=url, api_key="none", num_retries=3
                )
            messages.append({"role": "assistant", "content": answered.choices[0].message.content})
            file.write(json.dumps({"messages": messages}) + "\n")

        with open(prompts, encoding="utf-8") as lines:
            await asyncio.gather(*(ask(line.rstrip("\n")) for line in lines), return_exceptions=True)


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
