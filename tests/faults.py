"""What a broken or hostile endpoint sends in place of a completion: whole responses, by name."""

from __future__ import annotations

import gzip
import json
from typing import Any

DEEP = "[" * 100_000


def http(body: bytes | str, status: str = "200 OK", **headers: str) -> bytes:
    """A whole response; a header with the name `content_length` replaces the right one."""
    data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    given = {"content-type": "application/json", "content-length": str(len(data)), "connection": "close"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + data


def completion(content: Any = '{"action": "billing"}', **more: Any) -> str:
    """A chat completion with this content; `more` replaces its fields."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
    found = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(found | more)


def error(message: Any) -> str:
    return json.dumps({"error": {"message": message, "type": "x", "code": None}})


LOST = {
    "html": http("<html>sign in</html>", content_type="text/html"),
    "nothing": http(""),
    "null": http("null"),
    "list": http("[1, 2]"),
    "no JSON": http("{'choices': 1}"),
    "deep": http(DEEP),
    "deep inside": http('{"choices": ' + DEEP + "}"),
    "latin-1": http("é".encode("latin-1")),
    "no choices": http(completion(choices=[])),
    "null choices": http(completion(choices=None)),
    "choices of text": http(completion(choices="abc")),
    "null message": http(completion(choices=[{"message": None}])),
    "cut off": http(completion(), content_length="100000"),
    "bad chunks": http("xyz\r\n", transfer_encoding="chunked"),
    "no HTTP": b"220 mail.example.com ESMTP\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "endless header": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 300_000 + b"\r\n\r\n",
    "bad gzip": http(b"\x1f\x8b\x08nonsense", content_encoding="gzip"),
    "gzip cut off": http(gzip.compress(completion().encode())[:-20], content_encoding="gzip"),
    "closed": b"",
    "500": http(error("oops"), "500 X"),
    "500 of bytes": http(b"\xff\xfe", "500 X"),
    "520": http("<html>", "520 X", content_type="text/html"),
    "504 deep": http(DEEP, "504 X"),
}
"""After these, the request may have been charged."""
OVERLOADED = {
    "429": http(error("slow down"), "429 X", retry_after="0.01"),
    "429 of the past": http(error("slow down"), "429 X", retry_after="Thu, 01 Jan 1970 00:00:00 GMT"),
    "503 in milliseconds": http(error("slow down"), "503 X", retry_after_ms="5", retry_after="99999"),
    "429 nonsense": http(DEEP, "429 X", retry_after="0"),
}
"""After these, the request is sent again."""
REJECTED = {
    "400": http(error("no"), "400 X"),
    "400 deep": http(DEEP, "400 X"),
    "400 surrogate": http(error("\ud800 \x1b[2J"), "400 X"),
    "400 list": http("[]", "400 X"),
    "400 number": http(error(17), "400 X"),
}
"""These reject one question."""
REFUSED = {
    "401": http(error("no"), "401 X"),
    "404": http("<html>not here</html>", "404 X", content_type="text/html"),
    "403 of nothing": http("", "403 X"),
    "402 surrogate": http(error("\ud800"), "402 X"),
    "quota": http(json.dumps({"error": {"code": "insufficient_quota", "message": "pay"}}), "429 X"),
    "redirect": http("", "302 Found", location="http://127.0.0.1:9/other"),
}
"""These end a run."""
ANSWERED = {
    "empty text": http(completion("")),
    "null text": http(completion(None)),
    "number": http(completion(17)),
    "object": http(completion({"action": "billing"})),
    "deep text": http(completion(DEEP)),
    "surrogate": http(completion('{"action": "\ud800"}')),
    "null character": http(completion("a\0b")),
    "commands": http(completion("\x1b[2J\x9b]0;x\x07 \u2028 \u202e")),
    "long": http(completion("x" * 1_000_000)),
    "deep logprobs": http(completion(choices=[{"message": {"content": "x"}, "logprobs": {"content": "abc"}}])),
    "infinite usage": http(completion().replace("100", "1e999")),
    "negative usage": http(completion(usage={"prompt_tokens": -5, "completion_tokens": -5})),
    "huge usage": http(completion(usage={"prompt_tokens": 10**23, "completion_tokens": 1})),
    "NaN usage": http(completion(usage={"prompt_tokens": float("nan"), "completion_tokens": 1})),
    "text usage": http(completion(usage="lots")),
    "usage in a list": http(completion(usage=[1, 2])),
    "nested usage": http(completion(usage={"prompt_tokens": {}, "completion_tokens": [], "prompt_tokens_details": 3})),
}
"""These are answers, most of them without a label."""
ALL = LOST | OVERLOADED | REJECTED | REFUSED | ANSWERED
