"""A channel layer that says nothing of what it does to messages."""

from headrace.layers.local import LocalChannelLayer


class CarelessLayer(LocalChannelLayer):
    """Of twenty frames it loses one, brings one twice, and lets one wait for the next."""

    def __init__(self, **options):
        super().__init__(**options)
        self.taken = 0
        self.kept = None

    def received(self, frame):
        self.taken += 1
        kept, self.kept = self.kept, None
        match self.taken % 20:
            case 5:
                pass
            case 10:
                super().received(frame)
                super().received(frame)
            case 15:
                self.kept = frame
            case _:
                super().received(frame)
        if kept is not None:
            super().received(kept)
