"""Measures the event plane beside what people use today; script/bench runs it."""
