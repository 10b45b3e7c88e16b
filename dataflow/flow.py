"""The flow: `python -m bytewax.run dataflow.flow`.

Each step is a module of `dataflow/steps/`; `read` and `write` are `dataflow/sources/` and
`dataflow/sinks/`.

    read        Kafka partitions, or a file -> raw records
    decode      a format -> readings, or rejected        also admit: up to ANOMALY_MAX_INSTANCES
    key_on      by instance and metric                   in exchange
    hand_over   to the worker of the instance            in exchange
    reorder     by index                                 only with ANOMALY_REORDER=true
    normalize   CPU percent -> 0..1
    score       one detector state per key               or score_windows: many readings at a time;
                                                         or score_together: all metrics of an
                                                         instance, with ANOMALY_TOGETHER=true
    filter      score above the threshold
    anomaly     reading and score -> anomaly record
    write       Kafka topic, JSON lines, or standard output
    incidents   anomalies and silence of an instance     only with ANOMALY_INCIDENTS=true
                -> opened, updated, resolved
    groups      incidents of members of a group          only with groups
                that come together -> one of the group
    ends        the ends of episodes                     only for standard output on a terminal
    mark_epoch  a mark of each epoch in every file       only with a recovery store

The step ids are part of the recovery store's format: they never change.
"""

from __future__ import annotations

import faulthandler
import gc
import sys
from collections.abc import Mapping
from typing import Any

from dataflow.errors import UserError, missing_bytewax

try:
    from bytewax import operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.inputs import Source
    from bytewax.outputs import Sink
except ModuleNotFoundError:
    raise SystemExit(f"error: {missing_bytewax()}") from None

from dataflow import settings, sinks, sources
from dataflow.detectors import AnyDetector, WindowedDetector
from dataflow.formats.base import Decode
from dataflow.metrics import counters
from dataflow.metrics import server as metrics_server
from dataflow.records import Raw
from dataflow.recovery import disk
from dataflow.recovery.store import Store, guard
from dataflow.runtime import clock, shutdown
from dataflow.runtime.arguments import arguments
from dataflow.runtime.stateful_map import stateful_map
from dataflow.sinks.kafka import KafkaSink
from dataflow.sources.kafka import KafkaSource
from dataflow.steps import (
    admit,
    announce,
    anomaly,
    calendars,
    decode,
    exchange,
    filter,
    first_day,
    groups,
    incidents,
    mark_epoch,
    normalize,
    places,
    rejections,
    reorder,
    rules,
    score,
    score_windows,
    times,
    together,
    usable,
    verdicts,
    worst,
)

__all__ = ["build", "flow"]


def build(
    options: settings.Settings,
    detector: AnyDetector,
    store: Store | None,
    *,
    source: Source[Raw] | None = None,
    outputs: Mapping[str, Sink[Any]] | None = None,
    decoding: Decode | None = None,
    clock_decides: bool = True,
    scores_to: score.ScoredQueue | None = None,
    scores_from: score.ScoredQueue | None = None,
) -> Dataflow:
    """Wire the flow.

    `source` and `outputs` replace those that the settings name, and `decoding` what the step
    `decode` makes of a batch. `outputs` maps step ids to sinks:
    `write_rejected` gets the rejected records, ids that start with `write_incidents` get the
    incidents, `write_scored` gets the readings that an instance has in a batch with their scores
    (also those of all its metrics together), all others the anomalies. A kind of record without a
    sink is not written. As always in Bytewax, a partitioned sink gets the records, a dynamic one
    pairs of key and record.

    Without `clock_decides`, the same input always makes the same incidents, however long it takes:
    a silence is found at the next reading only, and the incidents of groups are taken at the end of
    the input, in the order of their times.

    `scores_to` and `scores_from` are for two flows over the same readings: see `ScoredQueue`.

    Raises `UserError` if the input or an output of the settings cannot be used, and `ValueError`
    for an output of incidents without `options.incidents`.

    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> options = settings.Settings(_env_file=None, detector="tutorial", threshold=0.9)
    >>> record = b'{"instance": "i-1", "timestamp": %d, "index": %d, "value": %d}'
    >>> values = [20, 21, 20, 22, 21] * 4 + [97]
    >>> raw = [Raw(0, at, record % (300 * at, at, value)) for at, value in enumerate(values)]
    >>> found = []
    >>> run_main(build(options, score.detector(options), None, source=TestingSource(raw),
    ...                outputs={"write_here": TestingSink(found)}))
    >>> [(instance, one.index, one.value) for instance, one in found]
    [('i-1', 20, 0.97)]
    """
    episodes = score.episode_rules(options, detector)
    threshold = episodes.threshold

    flow = Dataflow("ec2_anomalies")
    records = sources.source(options, store) if source is None else source
    ends = records.end if isinstance(records, KafkaSource) else None
    log = places.places(options, store, ends)
    ruled = rules.rules(options, detector, threshold, log)
    quiet = verdicts.verdicts(options, detector, episodes, log)
    raw = op.input("read", flow, records)
    admission = admit.admitter(options, decode.decoder(options, store))
    grouped = options.incidents and bool(options.groups)
    decoding = admission if decoding is None else decoding
    decoding = places.marked(groups.marked(decoding) if grouped else decoding, log)
    decoded = op.flat_map_batch("decode", raw, mark_epoch.marked(decoding, store))
    checked = op.branch("check", decoded, decode.is_reading)
    rejected = mark_epoch.take_marks(checked.falses, store)
    if grouped:
        rejected, passed = groups.take_marks(rejected)
    several, joint = options.several_metrics, options.together
    keyer = exchange.keyer(admission, several=several, together=joint)
    keyed = op.flat_map_batch("key_on", checked.trues, keyer)
    keyed = exchange.hand_over(flow, keyed, together=joint)
    if options.reorder:
        keyed = op.stateful_batch("reorder", keyed, reorder.reorderer(options))
    normalizer = normalize.normalizer(options.scale, several=several)
    normal = op.flat_map_batch("normalize", keyed, places.refreshed(normalizer, log))
    backwards = times.backwards(options.reorder)
    if isinstance(detector, WindowedDetector):
        together.refuse_windows(options)
        first_day.of(options, detector, store)
        windower = score_windows.windower(detector, episodes, backwards)
        scored = judged = op.stateful_batch("score_windows", normal, windower)
    else:
        judge = ruled if ruled and ruled.judges else score.judge(options, episodes)
        begin = first_day.of(options, detector, store)
        clocks = calendars.of(options)
        explainer = score.explainer(options)
        scorer = score.scorer(
            *(detector, episodes, backwards, clocks, judge, begin, quiet, explainer),
            *(scores_to, scores_from),
        )
        if joint:
            of_rules = ruled if ruled and ruled.judges else None
            together_scorer = together.scorer(options, detector, scorer, of_rules)
            scored, judged = together.judged(normal, together_scorer)
        else:
            scored = judged = stateful_map("score", normal, *scorer)
    limit = None if ruled and ruled.judges else threshold
    above = op.flat_map_batch("filter", scored, filter.above(limit, worst.follower(options)))
    convert = anomaly.from_scored(options, detector, threshold, ruled)
    streams: dict[str, Any] = {"anomaly": op.map_value("anomaly", above, convert)}
    if joint:
        threshold = together.threshold(options)
        of_all_limit = None if limit is None else threshold
        above = op.flat_map_batch("filter_together", judged, filter.above_together(of_all_limit))
        convert = anomaly.from_scored(options, detector, threshold, ruled)
        of_all = op.map_value("anomaly_together", above, convert)
        streams["anomaly"] = op.merge("anomalies", streams["anomaly"], of_all)
    if options.incidents:
        caught_up = records.caught_up if isinstance(records, KafkaSource) else None
        monitors = incidents.monitors(
            options, detector, store, caught_up, ruled, clock_decides=clock_decides
        )
        alive = incidents.signs_of_instances if joint else incidents.signs_of_life
        signs = op.flat_map_batch("signs_of_life", rejected, alive)
        watched: Any = op.merge("watched", judged, signs)
        found: Any = op.stateful_batch("incidents", watched, monitors)
        if ruled is not None:
            found = op.flat_map_batch("route", found, ruled.incidents)
        if grouped:
            partitions = records.partitions if isinstance(records, KafkaSource) else ()
            found = groups.gather(
                *(options, found, passed, partitions, store, caught_up),
                clock_decides=clock_decides,
            )
        streams["incident"] = found
    for step, sink in (sinks.end_outputs(options) if outputs is None else {}).items():
        op.output(step, op.flat_map_batch("ends", judged, filter.ends), sink)
    streams["rejected"] = op.key_on("key_rejected", rejected, decode.origin)
    if outputs is not None and "write_scored" in outputs:
        streams["scored"] = op.merge("scored", scored, judged) if joint else scored

    for step, sink in (_outputs(options, store) if outputs is None else outputs).items():
        kind = counters.kind(step)
        if kind not in streams:
            raise ValueError(f"the output {step} gets incidents: set options.incidents to use it")
        op.output(step, streams[kind], sink)
    return flow


def _outputs(options: settings.Settings, store: Store | None) -> dict[str, Sink[Any]]:
    """Return the sinks that the settings name, by step id."""
    outputs = sinks.outputs(options, store)
    if options.incidents:
        outputs |= sinks.incident_outputs(options, store)
    _prove(outputs)
    # Last: it may create a topic, which it must not if another output cannot be used.
    rejected = {"write_rejected": sinks.rejected_output(options, store)}
    _prove(rejected)
    return outputs | rejected


def _prove(outputs: Mapping[str, Sink[Any]]) -> None:
    for step, sink in outputs.items():
        if isinstance(sink, KafkaSink):
            sink.prove(step)


def flow() -> Dataflow:
    """Build the flow from the environment, as `python -m bytewax.run dataflow.flow` does."""
    if sys.stderr is not None:
        # A crash in the C code of a library would end the process without a line.
        faulthandler.enable()
    try:
        shutdown.on_signals()
        clock.watch()
        options = settings.load()
        metrics_server.start(options)
        detector = score.detector(options)
        store = guard(options, score.form_of_states(detector))
        if store is not None:
            disk.watch(store.folder)
        dataflow = build(options, detector, store)
        if not (store is not None and store.resumed) and not arguments().addresses:
            usable.end_loudly(options)
        rejections.summarize_at_exit(options)
        threshold = score.episode_rules(options, detector).threshold
        announce.to_a_terminal(options, threshold, store)
        # No record is part of a cycle, and looking for cycles takes 8% of the time.
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)
        return dataflow
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
