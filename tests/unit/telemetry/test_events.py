from lowmem_rl.telemetry.events import Event, Note, isolate_listener


def test_a_listener_that_fails_costs_no_run_and_is_reported_once(capsys) -> None:
    heard: list[str] = []

    def listen(event: Event) -> None:
        assert isinstance(event, Note)
        if event.text == "plot":
            raise ZeroDivisionError("no figures")
        heard.append(event.text)

    listen_on = isolate_listener(listen)
    for text in ("plot", "one", "plot", "two"):
        listen_on(Note(text))
    assert heard == ["the display of the run failed; the run continues: ZeroDivisionError: no figures", "one", "two"]
    assert capsys.readouterr().err.count("Traceback") == 1
