"""An observer that remembers."""


class Recorder:
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple] = []
        self.tries: list[int] = []

    def taken(self, index):
        self.tries.append(index)

    def started(self, index):
        self.events.append(("started", index))

    def progress(self, index, progress):
        self.events.append(("progress", index, progress))

    def done(self, index, outcomes):
        self.events.append(("done", index))

    def failed(self, index, message):
        self.events.append(("failed", index, message))

    def of(self, index: int) -> list[str]:
        return [event[0] for event in self.events if event[1] == index]

    def message(self, index: int) -> str:
        (message,) = [event[2] for event in self.events if event[:2] == ("failed", index)]
        return message
