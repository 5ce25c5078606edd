"""docs/sandbox.md says what there is: routes, codes and faults."""

from __future__ import annotations

import asyncio
import re
import tomllib
from pathlib import Path

from aiohttp import web

from backtest.sandbox import refusals
from backtest.sandbox.faults import Fault, FaultPlan
from backtest.sandbox.venue import SandboxVenue
from tests.backtest.sandbox.client import trading_venue

PAGE = (Path(__file__).parents[3] / "docs" / "sandbox.md").read_text()


def first_cells(heading: str) -> list[str]:
    """First cells of the table that begins with a heading."""
    lines = PAGE.split(f"| {heading} |", 1)[1].splitlines()[2:]
    rows = lines[: next(number for number, line in enumerate(lines) if not line.startswith("|"))]
    return [row.split("|")[1].strip() for row in rows]


async def routes_of(venue: SandboxVenue) -> set[str]:
    async with venue:
        assert venue._runner is not None
        application = venue._runner.app
        assert isinstance(application, web.Application)
        return {
            f"{route.method} {route.resource.canonical}"
            for route in application.router.routes()
            if route.resource is not None and route.method in ("GET", "POST")
        }


def test_every_route_is_documented_and_every_documented_route_is_there():
    found = {route for route in asyncio.run(routes_of(trading_venue())) if route.split()[1].startswith("/v5/")}
    sockets = {f"GET {cell.strip('`')}" for cell in first_cells("socket")}
    assert {cell.strip("`") for cell in first_cells("route")} | sockets == found


def test_every_fault_is_documented_and_the_example_is_a_plan():
    assert {cell.strip("`") for cell in first_cells("do")} == set(Fault)
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(FaultPlan.of(tomllib.loads(example)).rules) == 3


def test_every_code_is_documented():
    # Codes that only a fault plan brings.
    planned = {refusals.SERVER_TIMEOUT, refusals.SERVER_ERROR}
    codes = {value for name, value in vars(refusals).items() if name.isupper() and isinstance(value, int)}
    documented = {int(code) for cell in first_cells("code") for code in cell.split(", ")}
    assert codes - planned == documented
