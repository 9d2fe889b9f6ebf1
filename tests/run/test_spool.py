"""The spool gives back what was put in, and whatever is whole of a file that was cut short."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import DONE, END, HEAD, chunk, event, meta

from profiler.run import spool
from profiler.run.decode import decode

INT64 = st.integers(-(2**63), 2**63 - 1)
RECORDS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2**32 - 1), INT64, INT64, st.binary(max_size=300)), max_size=700)


@settings(max_examples=40)
@given(records=RECORDS, cut=st.integers(0, 400))
def test_round_trip_and_a_file_cut_short(records, cut):
    with TemporaryDirectory() as folder:
        path = Path(folder) / spool.NAME
        writer = spool.Writer(path)
        for record in records:
            writer.add(*record)
        writer.close()
        assert list(spool.read(path)) == records
        size = max(0, path.stat().st_size - cut)
        os.truncate(path, size)
        left = list(spool.read(path))
        assert left == records[: len(left)]
        ends = [0]
        for record in records:
            ends.append(ends[-1] + spool.HEADER.size + len(record[4]))
        assert len(left) == sum(end <= size for end in ends) - 1  # every whole record


def test_records_larger_than_what_is_read_at_once(tmp_path):
    writer = spool.Writer(tmp_path / spool.NAME)
    records = [(spool.READ, i, i, i, os.urandom(700_000)) for i in range(4)]
    for record in records:
        writer.add(*record)
    writer.close()
    assert list(spool.read(tmp_path / spool.NAME)) == records


def test_what_was_flushed_survives_without_a_close(tmp_path):
    writer = spool.Writer(tmp_path / spool.NAME)
    writer.add(spool.EOF, 1, 2, 3)
    assert list(spool.read(tmp_path / spool.NAME)) == []
    writer.flush()
    assert list(spool.read(tmp_path / spool.NAME)) == [(spool.EOF, 1, 2, 3, b"")]
    writer.close()


def write(path: Path, records: list[tuple]) -> None:
    writer = spool.Writer(path / spool.NAME)
    for record in records:
        writer.add(*record)
    writer.close()
    (path / "result.json").write_text('{"window_open_ns": 100, "window_close_ns": 1000}')


def sent(seq: int, body: int, intended: int, at: int, reused: int = 0) -> tuple:
    return (spool.SENT, seq, intended, at, spool.SENT_PAYLOAD.pack(body, reused))


def test_kernel_stamps_are_converted_by_the_last_pair_of_clocks(tmp_path):
    first, last = HEAD + chunk(event([1], "a")), chunk(event([2], "b", finish="stop")) + chunk(DONE) + END
    write(
        tmp_path,
        [
            (spool.CLOCK, 0, 5000, 90, b""),
            sent(0, 0, 100, 110),
            (spool.READ, 0, 5200, 230, first),  # arrived at 200, read at 230
            (spool.CLOCK, 0, 5001, 240, b""),  # the clocks drifted by a nanosecond
            (spool.READ, 0, 5401, 410, last),
            (spool.END, 0, 0, 412, b""),
            sent(1, 1, 150, 160),
            (spool.READ, 1, 5703, 700, first),  # 702 - later than our own read: the clocks' error
            (spool.READ, 1, 0, 800, last),  # no stamp
            (spool.END, 1, 0, 801, b""),
        ],
    )
    a, b = decode(tmp_path, meta(2), None).requests
    assert (a.sent_ns, a.first_token_ns, a.last_token_ns, a.done_ns) == (110, 200, 400, 400)
    assert (b.first_token_ns, b.last_token_ns) == (700, 800)


def test_the_delay_of_our_reads_is_told_by_order_statistics(tmp_path):
    reads = [(spool.READ, 0, 1000 + i, 1000 + i + 10 * (i + 1), b"x") for i in range(100)]
    write(tmp_path, [(spool.CLOCK, 0, 0, 0, b""), sent(0, 0, 100, 110), *reads, (spool.ERROR, 0, 0, 9999, b"reset: gone")])
    decoded = decode(tmp_path, meta(1), None)
    assert (decoded.read_delay_p50_s, decoded.read_delay_p99_s) == (500e-9, 990e-9)


def test_records_are_in_the_order_of_sending_and_a_second_use_is_named(tmp_path):
    whole = HEAD + chunk(event([1], "a", finish="stop")) + chunk(DONE) + END
    records: list[tuple] = [(spool.CLOCK, 0, 0, 0, b"")]
    for seq, body in enumerate((0, 1, 0, 1, 0)):
        records.append(sent(seq, body, 100 + seq, 110 + seq))
    for seq in (4, 2, 0, 3, 1):
        records += [(spool.READ, seq, 0, 500, whole), (spool.END, seq, 0, 500, b"")]
    write(tmp_path, records)
    requests = decode(tmp_path, meta(2), None).requests
    assert [r.request_id for r in requests] == ["r0", "r1", "r0#2", "r1#2", "r0#3"]
    assert [r.intended_ns for r in requests] == [100, 101, 102, 103, 104]
    assert sum(r.text is not None for r in requests) == 3


def test_a_request_sent_again_over_a_new_connection_is_one_request(tmp_path):
    whole = HEAD + chunk(event([1], "a", finish="stop")) + chunk(DONE) + END
    write(
        tmp_path,
        [
            (spool.CLOCK, 0, 0, 0, b""),
            sent(0, 0, 100, 110, 1),
            (spool.EOF, 0, 0, 115, b""),
            sent(0, 0, 100, 120),
            (spool.READ, 0, 0, 500, whole),
            (spool.END, 0, 0, 500, b""),
        ],
    )
    (request,) = decode(tmp_path, meta(1), None).requests
    assert (request.sent_ns, request.connection_reused, request.error_kind) == (120, False, None)


def test_what_a_killed_client_left_is_decoded_as_far_as_it_came(tmp_path):
    write(
        tmp_path,
        [
            (spool.CLOCK, 0, 0, 0, b""),
            sent(0, 0, 100, 110),
            sent(1, 1, 100, 111),
            (spool.READ, 0, 0, 500, HEAD + chunk(event([1], "a"))),
        ],
    )
    first, second = decode(tmp_path, meta(2), None).requests
    assert (first.error_kind, first.output_tokens, first.first_token_ns) == ("truncated", 1, 500)
    assert (second.error_kind, second.output_tokens, second.sent_ns) == ("truncated", None, 111)
