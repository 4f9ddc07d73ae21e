"""Error handlers: every error response is the API's error object."""

from __future__ import annotations

import errno
import json
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import DatabaseError
from starlette.exceptions import HTTPException

from fingerpost.server.ops.logs import log, log_sometimes
from fingerpost.server.schemas import ApiError, error_body

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def add_error_handlers(app: FastAPI) -> None:
    """Install the handlers of this module."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    for kind in (OSError, DatabaseError, Exception):
        app.add_exception_handler(kind, _internal_error)


async def _api_error(_: Request, error: Any) -> JSONResponse:
    headers = {"retry-after": str(error.retry_after_s)} if error.retry_after_s else None
    return JSONResponse(error.body, error.status, headers)


async def _validation_error(_: Request, error: Any) -> Response:
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    message = first["msg"].removeprefix("Value error, ")
    body = error_body(400, f"{param}: {message}" if param else message, "invalid_value", param or None)
    return Response(json.dumps(body), 400, media_type="application/json")  # it escapes lone surrogates in `param`


async def _http_exception(request: Request, error: Any) -> JSONResponse:
    cause = error.__cause__
    if isinstance(cause, ApiError):
        return await _api_error(request, cause)
    if isinstance(cause, OSError):
        return await _internal_error(request, cause)
    message = {
        404: f"there is no endpoint {request.url.path}; {_advice(request.url.path)}",
        405: f"{request.url.path} does not accept {request.method}; see /openapi.json",
    }.get(error.status_code, str(error.detail))
    return JSONResponse(error_body(error.status_code, message), error.status_code, error.headers)


def _advice(path: str) -> str:
    """What to do about a path that does not exist."""
    without = ("/chat", "/models", "/files", "/fine_tuning", "/batches", "/route", "/completions", "/embeddings")
    return "the client's base URL has to end with /v1" if path.startswith(without) else "see /openapi.json"


async def _internal_error(request: Request, error: Any) -> JSONResponse:
    """Logs the error with its trace; the client gets no details."""
    request_id = getattr(request.state, "request_id", None)
    if getattr(error, "errno", None) in DISK_FULL or "is full" in str(error):
        log_sometimes("the disk is full", logging.ERROR, path=request.url.path)
        body = error_body(507, "the server's disk is full and nothing was stored; free some space", "disk_full")
        return JSONResponse(body, 507)
    log("request failed", logging.ERROR, error, path=request.url.path, request_id=request_id)
    return JSONResponse(error_body(500, "internal server error; see the server's log", "server_error"), 500)
