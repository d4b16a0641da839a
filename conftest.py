"""Hypothesis profiles of every test run here; `HYPOTHESIS_PROFILE` picks one.

`ci` draws the same examples each time, so that a failure is a change of the code. The deadline is
off everywhere: no test here depends on a clock.
"""

import os

from hypothesis import HealthCheck, settings

# Assembling a small model inside a property is slower than what hypothesis expects of a draw.
patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("dev", max_examples=25, **patient)
settings.register_profile(
    "ci", max_examples=25, derandomize=True, database=None, print_blob=True, **patient
)
settings.register_profile("alone", settings.get_profile("ci"), max_examples=5)
settings.register_profile("slow", max_examples=100, print_blob=True, **patient)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
