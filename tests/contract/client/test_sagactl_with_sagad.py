"""sagactl against a real sagad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.recipes import compensating, parking, step, succeeding
from support.sagactl import Sagactl

from sagad_client import new_saga_id


@pytest.fixture
def sagactl(sagad: Any) -> Sagactl:
    return Sagactl(sagad.address)


@pytest.fixture
async def recipes(sagactl: Sagactl, tmp_path: Path) -> dict[str, str]:
    """Definitions that succeed, compensate and park, applied from one file; their ids."""
    suffix = new_saga_id()
    ids = {name: f"{name}-{suffix}" for name in ("ok", "bad", "stuck")}
    file = tmp_path / "recipes.yaml"
    documents = [succeeding(ids["ok"]), compensating(ids["bad"]), parking(ids["stuck"])]
    documents[0]["timeout"] = "5m"
    file.write_text(yaml.safe_dump_all(documents))
    result = await sagactl("definition", "apply", str(file))
    assert result.code == 0, result.err
    assert [line[0] for line in result.lines[1:]] == list(ids.values())
    return ids


async def test_a_saga_is_started_awaited_shown_and_listed(sagactl: Sagactl, recipes: dict[str, str]) -> None:
    arguments = ("start", recipes["ok"], "--input", '{"n": 1}', "--label", f"test={recipes['ok']}", "--wait")
    started = await sagactl(*arguments, "-o", "json")
    assert (started.code, started.json["state"]) == (0, "SAGA_STATE_SUCCEEDED"), started.err
    saga_id = started.json["sagaId"]
    shown = (await sagactl("get", saga_id, "-o", "yaml")).out
    assert yaml.safe_load(shown)["input"] == {"json": {"n": 1}}
    listed = await sagactl("list", "--label", f"test={recipes['ok']}")
    assert [line[:2] for line in listed.lines] == [["SAGA", "STATE"], [saga_id, "SUCCEEDED"]]
    events = (await sagactl("events", saga_id, "-o", "json")).json
    assert [event["revision"] for event in events] == [str(n) for n in range(1, len(events) + 1)]
    watched = await sagactl("watch", saga_id, "--after", "1")
    assert (watched.code, [line[0] for line in watched.lines]) == (0, [str(n) for n in range(2, len(events) + 1)])
    stats = await sagactl("stats", "--definition", recipes["ok"])
    assert ["SUCCEEDED", "1"] in stats.lines


async def test_a_saga_that_is_compensated_ends_with_4(sagactl: Sagactl, recipes: dict[str, str]) -> None:
    started = await sagactl("start", recipes["bad"], "--id", new_saga_id(), "--input", "{}", "--wait")
    assert started.code == 4
    assert ["state", "COMPENSATED"] in started.lines
    saga_id = started.lines[0][1]
    assert (await sagactl("watch", saga_id)).code == 4


async def test_a_parked_saga_is_repaired_by_each_call(sagactl: Sagactl, recipes: dict[str, str]) -> None:
    async def parked() -> str:
        result = await sagactl("start", recipes["stuck"], "--input", "{}", "--wait", "-o", "json")
        assert (result.code, result.json["state"]) == (4, "SAGA_STATE_PARKED"), result.err
        saga_id: str = result.json["sagaId"]
        return saga_id

    saga_id = await parked()
    shown = await sagactl("get", saga_id)
    assert f"sagactl retry {saga_id}" in shown.out
    stale = await sagactl("retry", saga_id, "--reason", "mended", "--revision", "1")
    assert (stale.code, stale.err.startswith("REVISION_CONFLICT")) == (1, True)
    assert (await sagactl("retry", saga_id, "--step", "ship", "--input", '{"x": 1}', "--reason", "mended")).code == 0
    assert (await sagactl("watch", saga_id)).code == 0

    saga_id = await parked()
    assert (await sagactl("skip", saga_id, "ship", "--reason", "by hand", "--step-output", "{}")).code == 0
    assert (await sagactl("watch", saga_id)).code == 0

    saga_id = await parked()
    abandoned = await sagactl("abandon", saga_id, "--reason", "settled outside", "-o", "json")
    assert abandoned.json["state"] == "SAGA_STATE_ABANDONED"
    refused = await sagactl("compensate", saga_id)
    assert (refused.code, refused.err.splitlines()[-1]) == (
        1,
        "Next: an abandoned saga has ended for good; start another one",
    )


async def test_a_succeeded_saga_is_undone(sagactl: Sagactl, recipes: dict[str, str]) -> None:
    saga_id = (await sagactl("start", recipes["ok"], "--wait", "-o", "json")).json["sagaId"]
    assert (await sagactl("compensate", saga_id, "--reason", "cancelled")).code == 0
    assert (await sagactl("watch", saga_id)).code == 4


async def test_a_completion_with_a_wrong_token_is_refused(sagactl: Sagactl, recipes: dict[str, str]) -> None:
    saga_id = (await sagactl("start", recipes["ok"], "--wait", "-o", "json")).json["sagaId"]
    result = await sagactl("complete", saga_id, "s0", "--token", "-", "--success", stdin="forged\n")
    assert (result.code, result.err.partition(":")[0]) == (1, "WRONG_COMPLETION_TOKEN")


async def test_a_file_of_sagas_is_started_once_however_often(
    sagactl: Sagactl, recipes: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "orders.jsonl"
    prefix = new_saga_id()
    file.write_text("".join(json.dumps({"saga_id": f"{prefix}-{n}", "input": {"n": n}}) + "\n" for n in range(200)))
    first = await sagactl("start", recipes["ok"], "--file", str(file), "--wait", "-o", "json")
    assert (first.code, first.json) == (0, {"sagas": 200, "existed": 0, "states": {"SUCCEEDED": 200}, "refused": []}), (
        first.err
    )
    again = await sagactl("start", recipes["ok"], "--file", str(file), "-o", "json")
    assert (again.json["states"], again.json["existed"]) == ({"SUCCEEDED": 200}, 200)
    total = (await sagactl("stats", "--definition", recipes["ok"], "-o", "json")).json["total"]
    assert total == "200"


async def test_a_definition_goes_out_and_in_again(sagactl: Sagactl, recipes: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "again.yaml"
    file.write_text((await sagactl("definition", "get", recipes["ok"], "-o", "yaml")).out)
    assert (await sagactl("definition", "apply", str(file))).code == 0
    off = await sagactl("definition", "deactivate", recipes["ok"], "1.0.0")
    assert off.lines[1][:3] == [recipes["ok"], "1.0.0", "no"]
    refused = await sagactl("start", recipes["ok"], "--version", "1.0.0")
    assert refused.code == 1
    assert "sagactl definition activate" in refused.err
    assert (await sagactl("definition", "activate", recipes["ok"], "1.0.0")).code == 0
    assert len((await sagactl("definition", "list", recipes["ok"], "-o", "json")).json) == 1
    assert (await sagactl("definition", "delete", recipes["ok"], "1.0.0")).code == 0
    assert (await sagactl("definition", "list", recipes["ok"], "-o", "json")).json == []


async def test_every_fault_of_every_definition_is_told(sagactl: Sagactl, tmp_path: Path) -> None:
    bad = succeeding("bad recipe!")
    bad["steps"] = [step("x", kind="STEP_KIND_PIVOT"), step("x")]
    file = tmp_path / "bad.json"
    file.write_text(json.dumps([bad, {**succeeding("worse"), "version": "one"}]))
    result = await sagactl("definition", "apply", "--dry-run", str(file))
    assert result.code == 1
    for path in ("definition.definition_id", "definition.steps[1].step_id", "definition.version"):
        assert path in result.err


async def test_the_server_is_shown(sagactl: Sagactl) -> None:
    assert (await sagactl("info")).lines[0][0] == "sagad"
    health = await sagactl("health")
    assert (health.code, health.lines[0]) == (0, ["healthy", "yes"])
    (node,) = (await sagactl("nodes", "-o", "json")).json
    assert (node["state"], node["incarnation"]) == ("NODE_STATE_LIVE", "1")
    assert (await sagactl("drain", "nobody")).code == 1
    participants = (await sagactl("participants", "-o", "json")).json
    assert any(one["name"] == "echo" and one["reachable"] for one in participants)
    assert (await sagactl("stats", "--service")).lines[0][0] == "up since"


async def test_a_purge_counts_first_and_then_removes(sagactl: Sagactl, recipes: dict[str, str]) -> None:
    assert (await sagactl("start", recipes["ok"], "--wait")).code == 0
    chosen = ("purge", "--definition", recipes["ok"])
    assert (await sagactl(*chosen, "--dry-run")).lines[0] == ["would purge", "1"]
    assert (await sagactl(*chosen, "--yes", "-o", "json")).json == {"purged": 1, "more": False}
    assert (await sagactl("list", "--definition", recipes["ok"], "-o", "json")).json == []


async def test_a_saga_is_watched_live_in_a_terminal(sagactl: Sagactl, recipes: dict[str, str]) -> None:
    result = await sagactl.in_terminal("start", recipes["ok"], "--wait")
    assert result.code == 0
    assert "SUCCEEDED" in result.out
    assert "s1" in result.out


async def test_a_saga_is_drawn_over_time(sagactl: Sagactl, recipes: dict[str, str]) -> None:
    saga_id = (await sagactl("start", recipes["bad"], "--input", "{}", "--wait", "-o", "json")).json["sagaId"]
    spans = (await sagactl("timeline", saga_id, "-o", "json")).json["spans"]
    assert [(span["stepId"], span["state"]) for span in spans] == [("first", "RUNNING"), ("first", "COMPENSATING")]
    piped = await sagactl("timeline", saga_id)
    assert [line[:3] for line in piped.lines[1:]] == [["first", "RUNNING", "1"], ["first", "COMPENSATING", "1"]]
    drawn = await sagactl.in_terminal("timeline", saga_id)
    assert (drawn.code, "undo first" in drawn.out) == (0, True)
    assert (await sagactl("timeline", "nothing")).code == 1


async def test_who_changed_a_definition_is_listed(sagactl: Sagactl, recipes: dict[str, str]) -> None:
    assert (await sagactl("definition", "deactivate", recipes["ok"], "1.0.0")).code == 0
    listed = (await sagactl("audit", "--kind", "definition-deactivated", "--after", "1h", "-o", "json")).json
    (event,) = [event for event in listed if event["subject"] == f"{recipes['ok']} 1.0.0"]
    assert event["kind"] == "AUDIT_KIND_DEFINITION_DEACTIVATED"
    piped = await sagactl("audit", "--limit", "1", "--actor", event["actor"])
    assert piped.lines[0] == ["TIME", "KIND", "SUBJECT", "ACTOR", "REASON", "DETAILS"]
    assert len(piped.lines) == 2
    assert (await sagactl("audit", "--before", "2020-01-01", "-o", "json")).json == []


async def test_what_is_parked_is_listed_with_a_command_that_works(sagactl: Sagactl, recipes: dict[str, str]) -> None:
    saga_id = (await sagactl("start", recipes["stuck"], "--input", "{}", "--wait", "-o", "json")).json["sagaId"]
    listed = await sagactl("parked", "--definition", recipes["stuck"])
    assert listed.lines[0] == ["SAGA", "DEFINITION", "STEP", "REASON", "SINCE", "CAN BE", "COMMAND"]
    (row,) = listed.lines[1:]
    assert [row[0], *row[2:4], row[5]] == [saga_id, "ship", "EXPRESSION_FAILED", "retried, skipped, abandoned"]
    (saga,) = (await sagactl("parked", "--definition", recipes["stuck"], "-o", "json")).json
    assert saga["parkings"][0]["stepId"] == "ship"
    words = row[-1].split()
    assert words[:3] == ["sagactl", "retry", saga_id]
    assert (await sagactl(*words[1:])).code == 0


async def test_all_that_is_parked_is_repaired_by_one_command(sagactl: Sagactl, recipes: dict[str, str]) -> None:
    for _ in range(3):
        assert (await sagactl("start", recipes["stuck"], "--input", "{}", "--wait")).code == 4
    chosen = ("--all", "--definition", recipes["stuck"], "--reason", "settled outside")
    dry = await sagactl("abandon", *chosen, "--dry-run")
    assert dry.lines == [["selected", "3"], ["would be repaired", "3"], ["would be refused", "0"], ["more match", "no"]]
    asked = await sagactl("abandon", *chosen)
    assert (asked.code, "--dry-run" in asked.err) == (2, True)
    one = await sagactl("abandon", *chosen, "--limit", "1", "--yes", "-o", "json")
    assert one.json == {"selected": 1, "repaired": 1, "refused": 0, "more": True, "refusals": []}
    refused = await sagactl("compensate", *chosen, "--state", "parked", "--yes")
    assert (refused.code, refused.lines[-1][1]) == (1, "PAST_PIVOT")
    in_terminal = await sagactl.in_terminal("abandon", *chosen, "--yes")
    assert (in_terminal.code, "2/2" in in_terminal.out) == (0, True)
    stats = await sagactl("stats", "--definition", recipes["stuck"])
    assert ["ABANDONED", "3"] in stats.lines
    audited = (await sagactl("audit", "--kind", "sagas-repaired", "--limit", "3", "-o", "json")).json
    assert [event["subject"] for event in audited] == ["ABANDON", "COMPENSATE", "ABANDON"]
