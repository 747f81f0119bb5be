"""What all tests share: the same examples every time, so that a red test is red for everybody."""

from hypothesis import settings

settings.register_profile("runout", derandomize=True, deadline=None)
settings.load_profile("runout")
