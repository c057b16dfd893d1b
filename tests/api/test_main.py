"""The main function of `turnpool-api`, in this process."""

import signal

import pytest

from api import main
from api.main import Server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_it_serves_ends_it(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """A process that is told to stop while it starts does not go on as if nothing had been said."""
    for name in ("configure", "spare_the_collector"):
        monkeypatch.setattr(main, name, lambda *_: None)
    monkeypatch.setattr(Server, "run", lambda _: signal.raise_signal(number))
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(SystemExit) as ended:
            main.main()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert ended.value.code == 0
