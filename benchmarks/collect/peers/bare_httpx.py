"""httpx, one client, a task a prompt behind a semaphore, rows appended as they come."""

import asyncio
import json
import sys

import httpx


async def main(prompts: str, url: str, out: str, concurrency: int) -> None:
    """Ask all prompts."""
    limit = asyncio.Semaphore(concurrency)
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        with open(out, "a", encoding="utf-8") as file:

            async def ask(prompt: str) -> None:
                messages = [{"role": "user", "content": prompt}]
                async with limit:
                    answered = await client.post(f"{url}/chat/completions", json={"model": "m", "messages": messages})
                answer = answered.json()["choices"][0]["message"]["content"]
                messages.append({"role": "assistant", "content": answer})
                file.write(json.dumps({"messages": messages}) + "\n")

            with open(prompts, encoding="utf-8") as lines:
                await asyncio.gather(*(ask(line.rstrip("\n")) for line in lines), return_exceptions=True)


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
