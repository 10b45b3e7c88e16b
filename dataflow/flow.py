"""The flow: `python -m bytewax.run dataflow.flow`.

    read        Kafka partitions (or a file)            -> raw records
    decode      JSON -> Reading | Rejected              bad ones go to the rejected topic
    key_on      by instance
    hand_over   to the worker that has the instance
    reorder     by index, where producers cannot key    only with ANOMALY_REORDER=true
    normalize   CPU percent -> 0..1
    score       stateful_map: one half-space-trees detector per instance, or a window at a time
    filter      score above the threshold
    write       Kafka topic `anomalies`, JSON lines, or standard output
    incidents   anomalies of an instance -> opened,     only with ANOMALY_INCIDENTS=true
                updated, resolved; and its silence

The step ids are part of the recovery store's format: they never change.
"""

from __future__ import annotations

import gc

from dataflow.errors import UserError, missing_bytewax

try:
    from bytewax import operators as op
    from bytewax.dataflow import Dataflow
except ModuleNotFoundError:
    raise SystemExit(f"error: {missing_bytewax()}") from None

from dataflow import settings, sinks, sources
from dataflow.detectors import AnyDetector, WindowedDetector
from dataflow.metrics import server as metrics_server
from dataflow.recovery.store import Store, guard
from dataflow.runtime import shutdown
from dataflow.runtime.stateful_map import stateful_map
from dataflow.steps import admit, decode, exchange, incidents, reorder, report, score, score_windows

__all__ = ["build", "flow"]


def build(options: settings.Settings, detector: AnyDetector, store: Store | None) -> Dataflow:
    """Wire the flow; a UserError if its input or an output cannot be used."""
    threshold = detector.threshold if options.threshold is None else options.threshold

    flow = Dataflow("ec2_anomalies")
    raw = op.input("read", flow, sources.source(options))
    decoded = op.flat_map_batch("decode", raw, admit.admitter(options, decode.decoder(options)))
    checked = op.branch("check", decoded, decode.is_reading)
    keyed = op.flat_map_batch("key_on", checked.trues, exchange.keyed)
    keyed = exchange.hand_over(flow, keyed)
    if options.reorder:
        keyed = op.stateful_batch("reorder", keyed, reorder.reorderer(options))
    normal = op.flat_map_batch("normalize", keyed, score.normalizer(options.scale))
    if isinstance(detector, WindowedDetector):
        scored = op.stateful_batch("score_windows", normal, score_windows.windower(detector))
    else:
        scorer = score.scorer(detector)
        scored = stateful_map("score", normal, scorer, detector.dump, detector.load)
    above = op.flat_map_batch("filter", scored, score.above(threshold))
    anomalies = op.map_value("anomaly", above, report.reporter(options, detector, threshold))
    for step, sink in sinks.outputs(options, store).items():
        op.output(step, anomalies, sink)

    if options.incidents:
        watch = incidents.watcher(options, detector, threshold, store)
        told = op.stateful_batch("incidents", scored, watch)
        for step, sink in sinks.incident_outputs(options, store).items():
            op.output(step, told, sink)

    # Bytewax types this branch as either kind.
    rejected = op.key_on("key_rejected", checked.falses, decode.origin)  # type: ignore[arg-type]
    op.output("write_rejected", rejected, sinks.rejected_output(options, store))
    return flow


def flow() -> Dataflow:
    """Build the flow from the environment: what `python -m bytewax.run dataflow.flow` calls."""
    try:
        shutdown.on_signals()
        options = settings.load()
        metrics_server.start(options)
        detector = score.detector(options)
        store = guard(options, score.form_of_states(detector))
        dataflow = build(options, detector, store)
        # Nothing that passes through makes cycles, and looking for them takes 8% of the time.
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)
        return dataflow
    except UserError as refusal:
        raise SystemExit(f"error: {refusal}") from None
