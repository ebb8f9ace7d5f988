"""A clock for tests: seconds that grow only where a test says so."""


class StoppedClock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds
