"""Dockerfile and compose.yaml, held against the repository: no container engine is needed."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cyclopts
import pytest
import yaml

from sagad_client.cli import app as sagactl
from sagad_examples.__main__ import app as sagad_example
from sagad_server.cli import cli as sagad
from sagad_server.config import load_config
from sagad_server.projection_app import projection_settings

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OTHERS = ("postgres:", "apache/kafka:", "valkey/valkey:", "mongo:")
OURS = [name for name, service in SERVICES.items() if not service["image"].startswith(OTHERS)]
COMMANDS = {"sagad": sagad, "sagactl": sagactl, "sagad-example": sagad_example}
OF_EVERY_SAGACTL_COMMAND = ("--server", "--call-timeout")
GRPC_PORT, HTTP_PORT = "7400", "7401"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines if line]


def only(instruction: str) -> str:
    (value,) = [value for name, value in instructions() if name == instruction]
    return value


def image_environment() -> dict[str, str]:
    return dict(word.split("=", 1) for name, value in instructions() if name == "ENV" for word in shlex.split(value))


def copies() -> Iterator[tuple[list[str], str | None]]:
    """The sources of each COPY, and the stage that they come from."""
    for name, value in instructions():
        if name == "COPY":
            words = value.split()
            stage = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), None)
            yield [word for word in words[:-1] if not word.startswith("--")], stage


def check_command(words: list[str]) -> None:
    """Fails unless the words are a console script of the project and a command line that it accepts."""
    name, *arguments = words
    assert name in PROJECT["scripts"]
    if name == "sagactl":  # these belong to all its commands, and are taken off before one is parsed
        pairs = re.findall(rf"({'|'.join(OF_EVERY_SAGACTL_COMMAND)})[= ](\S+)", " ".join(arguments))
        assert all(value for _, value in pairs)
        arguments = re.sub(rf"({'|'.join(OF_EVERY_SAGACTL_COMMAND)})[= ]\S+", "", " ".join(arguments)).split()
    try:
        COMMANDS[name].parse_args(arguments, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        pytest.fail(f"{shlex.join(words)}: {error}")


def command_of(service: str) -> list[str]:
    described = SERVICES[service]
    return [*described.get("entrypoint", json.loads(only("ENTRYPOINT"))), *described["command"]]


def test_the_image_copies_only_what_exists_and_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = {source for words, stage in copies() if stage is None for source in words}
    assert sources == kept
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_the_image_copies_from_stages_that_it_has() -> None:
    stages = {value.split()[-1] for name, value in instructions() if name == "FROM" and " AS " in value}
    assert {stage for _, stage in copies() if stage is not None} == stages


def test_the_image_holds_all_that_the_wheel_is_built_from() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {path.split("/")[0] for path in built["packages"]} | {PROJECT["readme"], *PROJECT["license-files"]}
    sources = {source for words, stage in copies() if stage is None for source in words}
    assert needed | {"pyproject.toml", "constraints.txt"} == sources


def test_the_image_installs_extras_that_exist() -> None:
    installed = re.search(r"'\.\[(.*?)\]'", "".join(value for name, value in instructions() if name == "RUN"))
    assert installed is not None
    assert set(installed[1].split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_image_does_not_run_as_root() -> None:
    created = " ".join(value for name, value in instructions() if name == "RUN")
    assert re.search(rf"useradd .*\b{only('USER')}\b", created)


def test_the_image_serves_and_probes_itself_by_commands_that_exist() -> None:
    check_command([*json.loads(only("ENTRYPOINT")), *json.loads(only("CMD"))])
    probe = json.loads(only("HEALTHCHECK").partition(" CMD ")[2])
    assert f"127.0.0.1:{GRPC_PORT}" in probe
    check_command(probe)


def test_the_image_listens_on_all_addresses_at_the_ports_that_it_exposes() -> None:
    config = load_config(None, {"SAGAD_POSTGRES__DSN": "postgresql://localhost/sagad"} | image_environment())
    assert (config.grpc.address, config.http.address) == (f"0.0.0.0:{GRPC_PORT}", f"0.0.0.0:{HTTP_PORT}")
    assert only("EXPOSE").split() == [GRPC_PORT, HTTP_PORT]


@pytest.mark.parametrize("service", OURS)
def test_a_service_runs_a_command_that_exists(service: str) -> None:
    check_command(command_of(service))


@pytest.mark.parametrize("service", OURS)
def test_a_service_runs_the_image_of_this_version(service: str) -> None:
    assert SERVICES[service]["image"] == f"sagad:{PROJECT['version']}"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_waits_for_services_that_exist(service: str) -> None:
    assert set(SERVICES[service].get("depends_on", {})) <= set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_mounts_what_exists(service: str) -> None:
    for mount in SERVICES[service].get("volumes", []):
        source = mount.split(":")[0]
        assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]


@pytest.mark.parametrize("service", OURS)
def test_a_service_reads_files_that_are_mounted(service: str) -> None:
    mounts = dict(reversed(mount.split(":")[:2]) for mount in SERVICES[service].get("volumes", []))
    for path in (word for word in command_of(service) if word.startswith("/")):
        target = next(target for target in mounts if path == target or path.startswith(f"{target}/"))
        assert (ROOT / mounts[target] / path.removeprefix(target).lstrip("/")).is_file()


def test_the_mounted_configuration_is_right_and_its_participants_are_those_of_the_examples() -> None:
    environment = image_environment() | SERVICES["sagad"]["environment"]
    config = load_config(ROOT / "deploy/sagad.yaml", environment)
    first_port = sagad_example.parse_args(command_of("examples")[1:])[1].arguments.get("port", 7411)
    expected = {name: f"examples:{first_port + i}" for i, name in enumerate(("inventory", "payment", "shipping"))}
    assert {name: participant.target for name, participant in config.participants.items()} == expected


def test_the_mirror_relays_to_the_kafka_of_the_compose_file() -> None:
    config = load_config(ROOT / "deploy/sagad.yaml", image_environment() | SERVICES["mirror"]["environment"])
    advertised = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert advertised == f"PLAINTEXT://{config.kafka.bootstrap_servers}"


def test_sagad_counts_its_limits_in_the_redis_of_the_compose_file() -> None:
    config = load_config(ROOT / "deploy/sagad.yaml", image_environment() | SERVICES["sagad"]["environment"])
    assert config.rate_limits.any
    assert config.redis.url is not None
    host = urlsplit(config.redis.url.get_secret_value()).hostname
    assert SERVICES["sagad"]["depends_on"][host] == {"condition": "service_healthy"}


def test_the_projection_reads_what_the_mirror_writes_and_writes_to_the_mongodb_of_the_compose_file() -> None:
    mirror, project = (
        load_config(
            ROOT / "deploy/sagad.yaml", image_environment() | SERVICES[name]["environment"], needs_postgres=False
        )
        for name in ("mirror", "project")
    )
    assert (project.kafka, project.mirror.topic) == (mirror.kafka, mirror.mirror.topic)
    assert projection_settings(project).mongo_url == "mongodb://mongo:27017"


def test_sagad_is_published_on_loopback_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published == [f"127.0.0.1:{port}:{port}" for port in (GRPC_PORT, HTTP_PORT)]


def test_sagad_has_longer_to_stop_than_it_drains() -> None:
    config = load_config(None, {"SAGAD_POSTGRES__DSN": "postgresql://localhost/sagad"})
    assert float(SERVICES["sagad"]["stop_grace_period"].removesuffix("s")) > config.service.drain_timeout
