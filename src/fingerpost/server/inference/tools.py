"""Which tool a reply calls: the one whose parameters hold the label, or, where each label has a tool, the label's own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from fingerpost.server.inference.json_schema import UnfillableError
from fingerpost.server.inference.schema_reply import UNFILLABLE, LabelSchema, find_label
from fingerpost.server.schemas import ApiError, ChatRequest, Json
from fingerpost.task.replies import resolve_label
from fingerpost.task.settings import Task

HANDOFF_PREFIXES = ("transfer_to_", "handoff_to_", "route_to_")
"""How agent frameworks name the tool that hands a conversation to somebody."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The call that a reply makes.

    Attributes:
        schema: the parameters with the place of the label; None if the tool's name is the label.
        name: the tool's name; None if the label decides it.
        by_label: the tool's name for each label, if each has its own.
        legacy: the request offers `functions`, the older form of `tools`; the reply has a `function_call`.
    """

    schema: LabelSchema | None = None
    name: str | None = None
    by_label: dict[str, str] = field(default_factory=dict)
    legacy: bool = False

    def name_for(self, label: str) -> str:
        """The name of the tool that is called for a label."""
        return self.name if self.name is not None else self.by_label[label]


def requested_tool(request: ChatRequest, task: Task) -> ToolCall | None:
    """The call that a request asks for; None for a reply in text.

    A named tool is always called. With `auto`, the call is made once: after the tool's result comes a text. With `required`, the tools are
    called one after the other, each once.

    Raises:
        ApiError: a tool is required, and none can be called with a label.
    """
    tools, choice, legacy = offered_functions(request)
    call = _chosen_call(request, tools, choice, task)
    return replace(call, legacy=legacy) if call is not None else None


def _chosen_call(request: ChatRequest, tools: list[Json], choice: Any, task: Task) -> ToolCall | None:
    if isinstance(choice, dict):
        named = choice.get("function")
        name = named.get("name") if isinstance(named, dict) else None
        return _call(next((tool for tool in tools if name is None or tool["name"] == name), None), task)
    if not tools or choice == "none":
        return None
    called = _called(request)
    if choice != "required":
        if _ends_with_result(request) and (not called or called & {tool["name"] for tool in tools}):
            return None
        return _first_call(tools, task)
    if not called:
        found = _first_call(tools, task)
        if found is None and len(tools) > 1:
            raise ApiError(
                400,
                "no tool has a parameter with labels, and no tool's name is a label",
                code=UNFILLABLE,
                param="tools",
            )
        return found or _call(tools[0], task)
    # An agent that has to call a tool each turn ends with the last one that it offers.
    left = [tool for tool in reversed(tools) if tool["name"] not in called]
    return _first_call(left, task)


def _first_call(tools: list[Json], task: Task) -> ToolCall | None:
    """The call of the first tool with a parameter for labels, or of the one whose name is the label; None if there is none."""
    for tool in tools:
        try:
            found = find_label(parameters_of(tool), task)
        except UnfillableError:
            continue
        if found.values is not None:
            return ToolCall(found, tool["name"])
    by_label = _tools_by_label(tools, task)
    return ToolCall(by_label=by_label) if by_label else None


def _call(tool: Json | None, task: Task) -> ToolCall | None:
    """The call of a tool that has to be called.

    Raises:
        ApiError: its parameters have no place for a label.
    """
    if tool is None:
        return None
    try:
        return ToolCall(find_label(parameters_of(tool), task), tool["name"])
    except UnfillableError as error:
        raise ApiError(
            400, f"the tool '{tool['name']}' cannot be called by a classifier: {error}", code=UNFILLABLE, param="tools"
        ) from None


def offered_functions(request: ChatRequest) -> tuple[list[Json], Any, bool]:
    """The functions that the request offers, its choice among them, and whether both are in the older form."""
    extra = request.model_extra or {}
    legacy = isinstance(extra.get("functions"), list) and not extra.get("tools")
    given = extra.get("functions" if legacy else "tools")
    offered = given if isinstance(given, list) else []
    if not legacy:
        offered = [tool.get("function") for tool in offered if isinstance(tool, dict)]
    choice = extra.get("function_call") if legacy else request.tool_choice
    if legacy and isinstance(choice, dict):
        choice = {"function": choice}
    functions = [tool for tool in offered if isinstance(tool, dict) and isinstance(tool.get("name"), str)]
    return functions, choice, legacy


def _tools_by_label(tools: list[Json], task: Task) -> dict[str, str]:
    """The tools whose name is a label, with or without one of HANDOFF_PREFIXES, and that need no arguments."""
    found: dict[str, str] = {}
    for tool in tools:
        name = tool["name"]
        plain = next((name.removeprefix(prefix) for prefix in HANDOFF_PREFIXES if name.startswith(prefix)), name)
        label = resolve_label(task, name) or resolve_label(task, plain)
        if label is not None and not parameters_of(tool).get("required"):
            found.setdefault(label, name)
    return found


def parameters_of(tool: Json) -> Json:
    """The JSON schema of a tool's arguments; empty if it has none."""
    found: Any = tool.get("parameters")
    return found if isinstance(found, dict) else {}


def _ends_with_result(request: ChatRequest) -> bool:
    """Whether the last message is the result of a tool or function."""
    return bool(request.messages) and request.messages[-1].role in ("tool", "function")


def _called(request: ChatRequest) -> set[str]:
    """The names of the tools that were called since the user's last message."""
    names: set[str] = set()
    for turn in reversed(request.messages):
        if turn.role == "user":
            break
        extra = turn.model_extra or {}
        calls = extra.get("tool_calls")
        functions = (
            [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
        )
        for function in [*functions, extra.get("function_call")]:
            if isinstance(function, dict) and isinstance(function.get("name"), str):
                names.add(function["name"])
    return names


def must_call(request: ChatRequest) -> bool:
    """Whether the request leaves no choice but to call a tool."""
    functions, choice, _ = offered_functions(request)
    return bool(functions) and (choice == "required" or isinstance(choice, dict))
