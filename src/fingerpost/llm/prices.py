"""What a call costs, in US dollars: from task.toml, else from the price library. No prices of our own."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from fingerpost.errors import TeacherError
from fingerpost.types import Prices, TeacherSettings, Usage

FREE = Prices(input=0, cached_input=0, output=0)


def is_local(settings: TeacherSettings) -> bool:
    """Whether the teacher runs on this machine, where a call costs no money."""
    if settings.gguf or settings.recorded:
        return True
    host = urlsplit(settings.base_url or "").hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def cost(settings: TeacherSettings, usage: Usage) -> float:
    """US dollars for a call of this teacher. `usage.cached` tokens are part of `usage.prompt`.

    Raises:
        TeacherError: no price is known; the message says how to set one.
    """
    prompt, cached, completion = usage.prompt or 0, usage.cached or 0, usage.completion or 0
    prices = settings.prices or (FREE if is_local(settings) else None)
    if prices is not None:
        cached_price = prices.input if prices.cached_input is None else prices.cached_input
        return ((prompt - cached) * prices.input + cached * cached_price + completion * prices.output) / 1e6
    from genai_prices import Usage as PricedUsage
    from genai_prices import calc_price

    priced = PricedUsage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=completion)
    where: dict[str, Any] = {"provider_api_url": settings.base_url} if settings.base_url else {"provider_id": "openai"}
    try:
        return float(calc_price(priced, model_ref=settings.model, **where).total_price)
    except LookupError:
        raise TeacherError(
            f"no price is known for the model '{settings.model}': add to [teacher] in task.toml "
            "prices = { input = 0.0, output = 0.0 }, in US dollars per million tokens (0 if it is free)"
        ) from None


def at_most(settings: TeacherSettings, prompt_bytes: int) -> float:
    """The most a call can cost: no tokenizer makes more tokens than there are bytes, and none is cached."""
    return cost(settings, Usage(prompt=prompt_bytes, cached=0, completion=settings.max_tokens))


def price_source() -> str:
    """The price library and its version, to be named beside a cost."""
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}"
