"""aiohttp, one session, a task a prompt behind a semaphore, rows appended as they come: what one writes in an hour."""

import asyncio
import json
import sys

import aiohttp


async def main(prompts: str, url: str, out: str, concurrency: int) -> None:
    """Ask all prompts."""
    limit = asyncio.Semaphore(concurrency)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        with open(out, "a", encoding="utf-8") as file:

            async def ask(prompt: str) -> None:
                messages = [{"role": "user", "content": prompt}]
                async with (
                    limit,
                    session.post(f"{url}/chat/completions", json={"model": "m", "messages": messages}) as r,
                ):
                    answer = (await r.json())["choices"][0]["message"]["content"]
                messages.append({"role": "assistant", "content": answer})
                file.write(json.dumps({"messages": messages}) + "\n")

            with open(prompts, encoding="utf-8") as lines:
                await asyncio.gather(*(ask(line.rstrip("\n")) for line in lines), return_exceptions=True)


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
