"""What every command has: the options for all of them, a client and an output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import grpc
from cyclopts import Group, Parameter

from sagad_client.backoff import Backoff
from sagad_client.client import DEFAULT_TARGET, Client
from sagad_client.commands.exits import UsageError
from sagad_client.commands.inputs import DurationOption
from sagad_client.durations import seconds_of
from sagad_client.terminal.output import Form, Output

_GROUP = Group("Options of every command", sort_key=100)

_QUICK = Backoff(attempts=4, initial_s=0.2, max_s=1.0)
_QUICK_TIMEOUT_S = 10.0  # a person waits
_PATIENT_TIMEOUT_S = 60.0


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True)
class CommonOptions:
    """Options of every command; they may stand before or after its name."""

    server: Annotated[
        str,
        Parameter(
            name=["--server", "-s"], env_var="SAGACTL_SERVER", help=f"Address of sagad; default {DEFAULT_TARGET}."
        ),
    ] = DEFAULT_TARGET
    namespace: Annotated[
        str,
        Parameter(name=["--namespace", "-n"], env_var="SAGACTL_NAMESPACE", help="Namespace of sagas and definitions."),
    ] = "default"
    tls: Annotated[bool, Parameter(env_var="SAGACTL_TLS", help="Use TLS, with the system's certificates.")] = False
    ca_file: Annotated[
        Path | None, Parameter(env_var="SAGACTL_CA_FILE", help="Use TLS, with the certificates of this PEM file.")
    ] = None
    call_timeout: Annotated[
        DurationOption | None,
        Parameter(
            name=["--call-timeout", "--timeout"],
            help="Bound of a call, such as 5s; default 10s, for waits and files 60s. (start has its own --timeout.)",
        ),
    ] = None
    output: Annotated[
        Form,
        Parameter(name=["--output", "-o"], help="Form of the result; json is ProtoJSON, mermaid for explore only."),
    ] = Form.TABLE


COMMON = CommonOptions()
"""The defaults."""


class Session:
    """What a command works with."""

    def __init__(self, options: CommonOptions, output: Output) -> None:
        self.server = options.server
        self.namespace = options.namespace
        self.output = output
        self._options = options

    def refuse_drawing(self) -> None:
        """For a command that has nothing to draw. Raises UsageError where a drawing is asked for."""
        if self.output.form is Form.MERMAID:
            raise UsageError("-o mermaid draws what sagactl definition explore finds; here it is table, json or yaml")

    def client(self, *, patient: bool = False) -> Client:
        """A client to be opened; a patient one waits until sagad is started again. Raises UsageError."""
        return Client(
            self.server,
            namespace=self._options.namespace,
            tls=self._tls(),
            timeout_s=self._timeout_s(_PATIENT_TIMEOUT_S if patient else _QUICK_TIMEOUT_S),
            backoff=Backoff() if patient else _QUICK,
        )

    def _timeout_s(self, default_s: float) -> float:
        if self._options.call_timeout is None:
            return default_s
        timeout_s = seconds_of(self._options.call_timeout)
        if timeout_s <= 0:
            raise UsageError("--call-timeout must be above 0s")
        return timeout_s

    def _tls(self) -> bool | grpc.ChannelCredentials:
        if self._options.ca_file is None:
            return self._options.tls
        try:
            return grpc.ssl_channel_credentials(self._options.ca_file.read_bytes())
        except OSError as error:
            raise UsageError(f"--ca-file: cannot read {self._options.ca_file}: {error.strerror}") from error


SessionParameter = Annotated[Session, Parameter(parse=False)]
"""The session, handed to a command and not typed by anybody."""
