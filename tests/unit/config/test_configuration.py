"""Where a configuration comes from, and what is said of its faults."""

import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from sagad_server.config import Config, ConfigError, load_config
from sagad_server.domain.validation import ValidationLimits
from sagad_server.guard.redis import RedisSettings
from sagad_server.guard_app import redis_settings
from sagad_server.mirror_app import mirror_settings

ROOT = Path(__file__).parents[3]
DSN = "postgresql://sagad:hunter2@127.0.0.1:5432/sagad"
ENVIRONMENT = {"SAGAD_POSTGRES__DSN": DSN, "PATH": "/bin", "SAGACTL_SERVER": "127.0.0.1:7400"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sagad.yaml"


def load(file: Path, text: str = "", environment: dict[str, str] | None = None, **flags: object) -> Config:
    file.write_text(text)
    return load_config(file, ENVIRONMENT | (environment or {}), flags)


def faults(file: Path, text: str = "", environment: dict[str, str] | None = None, **flags: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, text, environment, **flags)
    assert all(fault in str(caught.value) for fault in caught.value.faults)
    return [fault.replace(str(file), "FILE") for fault in caught.value.faults]


def test_only_the_dsn_is_required() -> None:
    config = load_config(None, {"SAGAD_POSTGRES__DSN": DSN})
    assert config.grpc.address == "127.0.0.1:7400"
    assert config.http.address == "127.0.0.1:7401"
    assert config.postgres.dsn.get_secret_value() == DSN
    with pytest.raises(ConfigError) as caught:
        load_config(None, {})
    assert caught.value.faults == ["postgres.dsn: is required (environment: SAGAD_POSTGRES__DSN)"]


def test_a_flag_wins_over_the_environment_that_over_the_file_and_that_over_the_default(file: Path) -> None:
    text = "log: {level: warning, format: console}\nservice: {name: from-file}\n"
    environment = {"SAGAD_LOG__LEVEL": "error", "SAGAD_SERVICE__NAME": "from-environment"}
    config = load(file, text, environment, service={"name": "from-flag"})
    assert config.service.name == "from-flag"
    assert config.log.level == "error"
    assert config.log.format == "console"
    assert config.service.cleanup_interval == 3600


def test_a_variable_reaches_every_depth(file: Path) -> None:
    environment = {
        "SAGAD_PARTICIPANTS__PAYMENT__TARGET": "payment:7412",
        "SAGAD_PARTICIPANTS__PAYMENT__TLS": "true",
        "SAGAD_VALIDATION__STEP__MAX_RETRIES__MAX": "5",
        "SAGAD_SERVICE__LABELS__REGION": "eu",
    }
    config = load(file, "participants: {payment: {target: old, step_timeout: 5s}}", environment)
    payment = config.participants["payment"]
    assert (payment.target, payment.tls, payment.step_timeout) == ("payment:7412", True, 5.0)
    assert config.validation.step.max_retries.max == 5
    assert config.service.labels == {"region": "eu"}


def test_the_environment_may_name_the_file(file: Path) -> None:
    file.write_text("service: {name: named}")
    assert load_config(None, ENVIRONMENT | {"SAGAD_CONFIG": str(file)}).service.name == "named"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30.0), ("1.5s", 1.5), ("5m", 300.0), ("1h30m", 5400.0), ("2d", 172_800.0)],
)
def test_a_duration_has_a_unit(file: Path, text: str, seconds: float) -> None:
    assert load(file, f"service: {{retention: {text}}}").service.retention == seconds


@pytest.mark.parametrize("text", ["30", "0", "1 h", "h", "-1s", "1.5", "1w", "1hs", "''", "true", "[]", "1e3s", ".5s"])
def test_a_duration_without_a_unit_is_refused(file: Path, text: str) -> None:
    (fault,) = faults(file, f"service: {{retention: {text}}}")
    assert "must be a duration with a unit, such as 500ms, 30s, 5m, 1h or 90d" in fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("grpc: {adress: 'x:1'}", "grpc.adress (FILE): is no key; did you mean grpc.address?"),
        ("server: {port: ':8080'}", "server (FILE): is no key"),
        (
            "participants: {pay: {target: 'x:1', step_timeuot: 1s}}",
            "participants.pay.step_timeuot (FILE): is no key; did you mean participants.pay.step_timeout?",
        ),
        ("1: 2", "1 (FILE): Keys should be strings (given: 1)"),
    ],
)
def test_an_unknown_key_is_refused_and_a_near_one_proposed(file: Path, text: str, fault: str) -> None:
    assert faults(file, text) == [fault]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("SAGAD_POSTGRES_DSN", "postgres_dsn (SAGAD_POSTGRES_DSN): is no key; did you mean postgres.dsn?"),
        ("SAGAD_GRPC__PORT", "grpc.port (SAGAD_GRPC__PORT): is no key"),
        ("SAGAD_DEBUG", "debug (SAGAD_DEBUG): is no key"),
    ],
)
def test_an_unknown_variable_is_refused(file: Path, name: str, fault: str) -> None:
    assert faults(file, environment={name: "x"}) == [fault]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("grpc: {address: localhost}", "grpc.address (FILE): must be HOST:PORT, such as 127.0.0.1:7400 or [::1]:7400"),
        ("http: {address: '127.0.0.1:65536'}", "http.address (FILE): must be HOST:PORT"),
        (
            "grpc: {tls_cert_file: /nowhere}",
            "grpc.tls_cert_file (FILE): Path does not point to a file (given: '/nowhere')",
        ),
        ("grpc: {tls_cert_file: FILE}", "grpc (FILE): tls_cert_file and tls_key_file must be given together"),
        ("postgres: {pool_min_size: 11}", "postgres (FILE): pool_min_size (11) is above pool_max_size (10)"),
        ("postgres: {writer_silence: 1ms}", "postgres.writer_silence (FILE): must be 500ms - 10m (given: '1ms')"),
        ("participants: {a: {target: x}}", "participants.a (FILE): a participant's name has 2-100 characters"),
        (
            "participants: {pay: {}}",
            "participants.pay.target: is required (environment: SAGAD_PARTICIPANTS__PAY__TARGET)",
        ),
        (
            "participants: {pay: {target: x, ca_file: FILE}}",
            "participants.pay (FILE): ca_file has no effect without tls",
        ),
        ("limits: {max_batch: 0}", "limits.max_batch (FILE): must be greater than or equal to 1 (given: 0)"),
        (
            "validation: {step: {id: {min_length: 90, max_length: 9}}}",
            "(FILE): min_length (90) is above max_length (9)",
        ),
        ("log: {format: xml}", "log.format (FILE): must be 'json' or 'console' (given: 'xml')"),
        ("log: verbose", "log (FILE): must hold keys"),
        ("service: {labels: {region: 1}}", "service.labels.region (FILE): must be a valid string (given: 1)"),
    ],
)
def test_a_fault_names_its_key_its_source_and_what_is_allowed(file: Path, text: str, fault: str) -> None:
    (found,) = faults(file, text.replace("FILE", str(file)))
    assert fault in found


def test_every_fault_is_named_at_once(file: Path) -> None:
    text = "grpc: {address: x}\nlog: {level: loud}\nunknown: 1\n"
    found = faults(file, text, {"SAGAD_LIMITS__MAX_WATCHES": "many"}, http={"address": "y"})
    assert [fault.split(":")[0] for fault in found] == [
        "grpc.address (FILE)",
        "http.address (flag)",
        "limits.max_watches (SAGAD_LIMITS__MAX_WATCHES)",
        "log.level (FILE)",
        "unknown (FILE)",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\na: 2\n", "FILE: line 2, column 1: is no valid YAML: 'a' is given twice"),
        ("log:\n  level: info\n  level: debug\n", "FILE: line 3, column 3: is no valid YAML: 'level' is given twice"),
        ("a: [hunter2\n", "FILE: line 2, column 1: is no valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("- a\n", "FILE: must hold sections, such as 'postgres:'"),
        ("? [a]\n: 1\n", "FILE: line 1, column 3: is no valid YAML: a key must be a word"),
        ("a: !!python/name:os.system\n", "FILE: line 1, column 4: is no valid YAML: could not determine a constructor"),
        ("a: \x01\n", "FILE: is no text, and so no valid YAML"),
    ],
)
def test_a_file_that_is_no_yaml_is_refused_without_being_quoted(file: Path, text: str, fault: str) -> None:
    (found,) = faults(file, text)
    assert found.startswith(fault)
    assert "hunter2" not in found


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load_config(tmp_path / "nothing.yaml", ENVIRONMENT)


def test_an_empty_section_is_allowed(file: Path) -> None:
    assert load(file, "grpc:\nparticipants:\n").participants == {}


def test_a_variable_cannot_be_a_value_and_a_section(file: Path) -> None:
    (fault,) = faults(file, environment={"SAGAD_LOG": "x", "SAGAD_LOG__LEVEL": "info"})
    assert fault == "SAGAD_LOG__LEVEL: log is given a value of its own by another variable"


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        (DSN, "postgresql://sagad:***@127.0.0.1:5432/sagad"),
        ("postgresql://sagad@db/sagad", "postgresql://sagad@db/sagad"),
        ("postgresql://db/sagad", "postgresql://db/sagad"),
        (
            "postgres://u:hunter2@a:1,b:2/d?target_session_attrs=primary",
            "postgres://u:***@a:1,b:2/d?target_session_attrs=primary",
        ),
        (
            "postgresql://db/d?user=u&password=hunter2&sslmode=require",
            "postgresql://db/d?user=u&password=***&sslmode=require",
        ),
        ("postgresql://u:hunt@er2/x?y@db/d", "postgresql://u:***@db/d"),
    ],
)
def test_no_password_is_shown(file: Path, dsn: str, shown: str) -> None:
    config = load(file, environment={"SAGAD_POSTGRES__DSN": dsn})
    assert config.masked()["postgres"]["dsn"] == shown
    for text in (repr(config), str(config), str(config.masked()), config.model_dump_json()):
        assert "hunter2" not in text


@pytest.mark.parametrize("name", ["SAGAD_POSTGRES__DSN", "SAGAD_POSTGRES", "SAGAD_POSTGRES__PASSWORD"])
def test_no_password_is_shown_in_a_fault(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {name: "host=db password=hunter2"})
    assert "hunter2" not in str(caught.value)


def test_what_is_shown_is_a_file_that_gives_the_same(file: Path) -> None:
    text = "participants: {pay: {target: 'x:1', step_timeout: 1m30s}}\nservice: {labels: {team: a}, retention: 250ms}\n"
    config = load(file, text)
    shown = config.masked()
    assert shown["participants"]["pay"]["step_timeout"] == "90s"
    shown["postgres"]["dsn"] = DSN
    assert load(file, yaml.safe_dump(shown)) == config


def test_a_configuration_cannot_be_changed(file: Path) -> None:
    config = load(file)
    with pytest.raises(ValidationError):
        config.log.level = "debug"  # type: ignore[misc]


def test_the_default_limits_of_validation_are_those_of_the_domain(file: Path) -> None:
    assert load(file).validation_limits() == ValidationLimits()


def test_limits_of_validation_come_from_the_configuration(file: Path) -> None:
    text = "validation: {max_steps: 7, step: {action: {min_length: 3}, timeout: {min: 10ms}}}\nlimits: {max_labels: 4}"
    limits = load(file, text).validation_limits()
    assert (limits.max_steps, limits.action.minimum, limits.step_timeout_ms.minimum, limits.max_labels) == (7, 3, 10, 4)


def test_the_example_for_compose_is_valid() -> None:
    config = load_config(ROOT / "deploy" / "sagad.yaml", ENVIRONMENT)
    assert set(config.participants) == {"inventory", "payment", "shipping"}


@pytest.mark.parametrize(
    ("kafka", "fault"),
    [
        ("{sasl_mechanism: PLAIN, sasl_username: sagad, sasl_password: hunter2}", "needs tls: true"),
        ("{sasl_mechanism: SCRAM-SHA-512, sasl_username: sagad}", "need each other"),
        ("{sasl_password: hunter2}", "need each other"),
        ("{ca_file: %s}", "need tls: true"),
        ("{tls: true, cert_file: %s}", "need each other"),
    ],
)
def test_a_way_to_kafka_that_is_not_safe_or_not_whole_is_refused(file: Path, kafka: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault) as refusal:
        load(file, f"kafka: {kafka.replace('%s', __file__)}")
    assert "hunter2" not in str(refusal.value)


def test_kafkas_password_is_in_no_text_of_the_configuration_or_of_the_mirrors_settings(file: Path) -> None:
    sasl = "sasl_mechanism: PLAIN, sasl_username: sagad, sasl_password: hunter2"
    text = f"kafka: {{bootstrap_servers: 'kafka:9093', tls: true, {sasl}}}"
    config = load(file, text)
    settings = mirror_settings(config)
    assert settings.connection["sasl_plain_password"] == "hunter2"
    assert settings.connection["security_protocol"] == "SASL_SSL"
    assert "hunter2" not in f"{config!r} {config.masked()} {settings!r}"


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        (
            "redis: {url: 'http://u:hunter2@redis'}",
            "redis.url (FILE): must be redis://USER:PASSWORD@HOST:PORT/DATABASE",
        ),
        ("redis: {url: 'redis://redis:hunter2'}", "redis.url (FILE): must be redis://USER:PASSWORD@HOST:PORT/DATABASE"),
        ("redis: {url: 'redis://redis/hunter2'}", "redis.url (FILE): must be redis://USER:PASSWORD@HOST:PORT/DATABASE"),
        ("redis: {url: 'redis://u:hunter2@redis', ca_file: PYTHON}", "without a url that begins with rediss://"),
        ("rate_limits: {clients: {overrides: {bob: RATE}}}", "a client's name is its IP address"),
        ("rate_limits: {definitions: {overrides: {order: RATE}}}", "must be NAMESPACE/DEFINITION_ID"),
        ("rate_limits: {participants: {overrides: {pay: RATE}}}", "overrides has pay, which participants has not"),
        ("rate_limits: {clients: {default: {per_second: 0, burst: 1}}}", "must be greater than or equal to 0.001"),
        (
            "rate_limits: {clients: {overrides: {10.0.0.7: {per_second: 1, brust: 1, burst: 1}}}}",
            "brust (FILE): is no key; did you mean rate_limits.clients.overrides.10.0.0.7.burst?",
        ),
    ],
)
def test_limits_that_would_not_do_what_they_say_are_refused(file: Path, section: str, fault: str) -> None:
    text = section.replace("RATE", "{per_second: 1, burst: 1}").replace("PYTHON", __file__)
    (found,) = faults(file, text)
    assert fault in found
    assert "hunter2" not in found


def test_the_password_of_redis_is_in_no_text_of_the_configuration_or_of_the_settings(file: Path) -> None:
    config = load(file, "redis: {url: 'rediss://u:hunter2@redis:6380/1'}")
    assert config.masked()["redis"]["url"] == "rediss://u:***@redis:6380/1"
    assert config.redis.url is not None
    settings = RedisSettings(url=config.redis.url.get_secret_value())
    assert "hunter2" not in f"{config!r} {config.masked()} {settings!r}"


def test_a_limit_for_all_nodes_without_the_library_of_redis_names_the_extra(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "redis: {url: 'redis://redis'}\nrate_limits: {clients: {default: {per_second: 1, burst: 1}}}\n"
    config = load(file, text)
    monkeypatch.setitem(sys.modules, "sagad_server.guard.redis", None)
    with pytest.raises(ConfigError, match=r"pip install 'sagad\[server,redis\]'"):
        redis_settings(config.redis)
