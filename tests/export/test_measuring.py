from hkrun.export.measuring import measure_latency


def test_latency_is_the_median_of_calls_made_in_turn(monkeypatch):
    # A clock that only the calls move: 1 s and 3 s, the second call once 50 s.
    now, calls = [0.0], []
    monkeypatch.setattr("hkrun.export.measuring.time.perf_counter", lambda: now[0])

    def call(name, seconds):
        def run():
            calls.append(name)
            now[0] += 50.0 if len(calls) == 8 else seconds

        return run

    medians, rounds = measure_latency([call("a", 1.0), call("b", 3.0)], rounds=5, at_most_s=1000)
    assert (medians, rounds) == ([1.0, 3.0], 5)
    assert calls == ["a", "b"] * 6  # one round warms up


def test_slow_networks_are_measured_once_at_least(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("hkrun.export.measuring.time.perf_counter", lambda: now[0])

    def call():
        now[0] += 60.0

    assert measure_latency([call], rounds=200, at_most_s=10.0) == ([60.0], 1)
