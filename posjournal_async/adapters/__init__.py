"""Sinks for other people's systems: each module is the one door of the extra that it is named after."""
