"""Tables as bytes: the streaming format of Arrow IPC."""

from __future__ import annotations

import pyarrow as pa

# Spark runs a worker a core already
_WRITE = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


_READ = pa.ipc.IpcReadOptions(use_threads=False)


def ipc_table(content: bytes | pa.Buffer) -> pa.Table:
    """The table that :func:`ipc_bytes` has turned into bytes."""
    return pa.ipc.open_stream(content, options=_READ).read_all()


def ipc_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_WRITE) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content
