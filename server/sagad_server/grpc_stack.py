"""gRPC's stack for asyncio, once for the life of a process."""

import socket

import grpc.aio


def start_grpc() -> None:
    """To be called before anything else of grpc.aio is used.

    When the stack's last object goes, its poller thread is joined from within the loop, and a call that is still open
    hangs both. So it stays for as long as the process.

    The poller writes a byte for each event of gRPC's core to a socket; the loop takes one byte off it, and all events,
    at each turn. Once a burst has filled the socket, the poller waits there, and brings one event a turn: calls that
    come in wait behind it, though the loop has time for them. So its socket is small, and does not wait: one byte that
    is not taken yet is enough to wake the loop.
    """
    pair = socket.socketpair

    def small() -> tuple[socket.socket, socket.socket]:
        reader, writer = pair()
        writer.setblocking(False)
        writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # as small as the system has them
        return reader, writer

    socket.socketpair = small  # type: ignore[assignment]  # for the next line, which makes the poller's
    try:
        grpc.aio.init_grpc_aio()
    finally:
        socket.socketpair = pair
