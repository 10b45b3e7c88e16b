"""What an output is: the class to subclass for an output of your own."""

from __future__ import annotations

import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from bytewax.outputs import DynamicSink, Sink, StatelessSinkPartition

from dataflow.errors import UserError, stop_process
from dataflow.metrics import counters
from dataflow.records import Anomaly, Incident
from dataflow.recovery.store import Store
from dataflow.settings import Settings

__all__ = ["BatchOutput", "Output"]


class Output(ABC):
    """One place where the flow writes anomalies and, with ANOMALY_INCIDENTS=true, incidents.

    ANOMALY_OUTPUT names the class: a built-in name, an entry point in the group `dataflow.outputs`
    of an installed package, or `module:Class`. The flow creates one object for anomalies and
    another for incidents. Most outputs need only `BatchOutput`.

    The guarantee is the sink's:

    - At least once: a resumed flow writes again what it wrote after its last snapshot. Any
      Bytewax sink gives this if a record is safe when `write_batch` returns, or at the latest when
      `snapshot` returns.
    - Exactly once: the sink also finds out what was written after the last snapshot and skips it.
      The fields of a record that do not change when it is computed again are `source` (of an
      anomaly), and `id` with `sequence` (of an incident). See `dataflow.sinks.jsonl`.

    Without a recovery store, a restarted flow reads its input from the first record and writes
    everything again.
    """

    def __init__(self, settings: Settings, store: Store | None) -> None:
        """Keep the settings of the flow, and its recovery store, None if it has none.

        Options of your own come from the environment, under names that do not begin with
        ANOMALY_. Raise `UserError` if the output cannot be used: the flow then does not start, and
        prints the message as its only line.
        """
        self.settings = settings
        self.store = store

    @abstractmethod
    def anomalies(self) -> Sink[Any]:
        """Return the sink for anomalies: pairs of key and `dataflow.records.Anomaly`.

        The key is the instance, or for another metric than the default one, instance and metric.
        """

    def incidents(self) -> Sink[Any] | None:
        """Return the sink for pairs of key and `dataflow.records.Incident`.

        None, the default, if this output takes no incidents.
        """
        return None


class BatchOutput(Output):
    """An output that writes records a batch at a time, each at least once.

    >>> from dataflow.records import encode
    >>> class Print(BatchOutput):
    ...     def write(self, records):
    ...         for record in records:
    ...             print(encode(record).decode())
    """

    @abstractmethod
    def write(self, records: Sequence[Anomaly | Incident]) -> None:
        """Write one or more records, all of one kind, in the order of their instance.

        The records must be safe when this returns. It is called by one thread at a time, and the
        flow waits for it, so a slow call slows the flow. Any exception ends the process with
        status 1; a `UserError` is printed as one line, any other with its traceback. Started again
        with its recovery store, the flow writes the batch again.
        """

    def anomalies(self) -> Sink[Any]:
        """Return a sink that calls `write`."""
        return _BatchSink(self)

    def incidents(self) -> Sink[Any] | None:
        """Return a sink that calls `write`."""
        return _BatchSink(self)


class _BatchSink(DynamicSink[Any]):
    def __init__(self, output: BatchOutput) -> None:
        self._output = output
        self._lock = threading.Lock()  # each worker of the process has a thread

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _BatchPart:
        counts = counters.output(type(self._output).__name__, step_id)
        return _BatchPart(self._output, self._lock, counts)


class _BatchPart(StatelessSinkPartition[tuple[str, Anomaly | Incident]]):
    def __init__(self, output: BatchOutput, lock: threading.Lock, counts: counters.Output) -> None:
        self._output = output
        self._lock = lock
        self._counts = counts

    def write_batch(self, items: list[tuple[str, Anomaly | Incident]]) -> None:
        records = [record for _, record in items]
        try:
            with self._lock:
                self._output.write(records)
        except UserError as error:
            stop_process(str(error))
        except Exception as error:
            traceback.print_exc()
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            stop_process(
                f"the output {type(self._output).__name__} cannot write ({reason}): correct this "
                "and start the flow again; with a recovery store, it writes what is missing."
            )
        self._counts.wrote([*records])
        self._counts.confirm()
