"""The driver of `moesim balance`: a resolved config to a Dataset, its figures and its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moesim.balance import figures, policies, study, tables, trace
from moesim.output.result import Result

# Mappings whose keys are the user's own.
OPEN = ("policies", "sweep")


def run(config: Mapping[str, Any]) -> Result:
    """What `conf/balance.yaml` asks for.

    One run; with `policies` (name -> replaced groups) several on the same draws, along a dim; with `sweep` those over
    worlds (see `study`); with a trace as world the recorded loads are replayed. Raises InputError for bad input.
    """
    if config.get("sweep"):
        data, draw, table = study.study(config), figures.of_study, tables.study_table
    elif trace.is_trace(config):
        data, draw, table = policies.compared(config), figures.of_trace, tables.trace_table
    else:
        data, draw, table = policies.compared(config), figures.of_run, tables.table
    drawn = dict(draw(data)) if config.get("figures", True) else {}
    return Result(data, table(data), file="balance.nc", figures=drawn)


def idle(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys without an effect under a config, and why."""
    return {}
