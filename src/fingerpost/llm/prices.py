"""The cost of a call in US dollars, by the prices in task.toml, else by the price library genai-prices."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fingerpost.core.errors import TeacherError
from fingerpost.core.types import Usage
from fingerpost.core.utils import is_loopback
from fingerpost.task.settings import Prices, TeacherSettings

FREE = Prices(input=0, cached_input=0, output=0)


def is_local(settings: TeacherSettings) -> bool:
    """Whether the endpoint is on this machine or is replayed, so that it needs no API key.

    A local endpoint may still be a proxy to a paid model. `cost` therefore uses the library's price if it has one.
    """
    if settings.gguf or settings.recorded:
        return True
    return is_loopback(settings.base_url)


def cost(settings: TeacherSettings, usage: Usage) -> float:
    """The cost of a call in US dollars. `usage.cached` tokens are part of `usage.prompt`.

    Raises:
        TeacherError: no price is known; the message says how to set one.
    """
    prompt, completion = usage.prompt or 0, usage.completion or 0
    cached = min(usage.cached or 0, prompt)  # some gateways do not include cached tokens in the prompt tokens
    prices = settings.prices or (FREE if settings.gguf or settings.recorded else None)
    if prices is None:
        try:
            return _library_price(settings.model, settings.base_url, is_local(settings), prompt, cached, completion)
        except LookupError:
            if not is_local(settings):
                raise TeacherError(
                    f"no price is known for the model '{settings.model}'; add to [teacher] in task.toml "
                    "prices = { input = 0.0, output = 0.0 }, in US dollars per million tokens (0 if it is free)"
                ) from None
            prices = FREE
    cached_price = prices.input if prices.cached_input is None else prices.cached_input
    return ((prompt - cached) * prices.input + cached * cached_price + completion * prices.output) / 1e6


@lru_cache(65_536)  # a look-up takes half a millisecond, and many questions have the same length
def _library_price(model: str, base_url: str | None, local: bool, prompt: int, cached: int, completion: int) -> float:
    """The cost in US dollars by the price library; raises LookupError if it does not know the model."""
    from genai_prices import Usage as PricedUsage
    from genai_prices import calc_price

    priced = PricedUsage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=completion)
    where: dict[str, Any] = {"provider_id": "openai"} if base_url is None else {}
    if base_url is not None and not local:
        where = {"provider_api_url": base_url}
    return float(calc_price(priced, model_ref=model, **where).total_price)


def at_most(settings: TeacherSettings, prompt_bytes: int) -> float:
    """An upper bound on the cost of a call in US dollars: one token per byte of the prompt, none of them cached."""
    return cost(settings, Usage(prompt=prompt_bytes, cached=0, completion=settings.max_tokens))


def price_source() -> str:
    """The name and version of the price library, to show beside a cost."""
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}"
