"""What an asyncio service gets from this library, and what it would get from what it would use instead.

`python3 run.py bench` runs all of it; docs/performance.md says what is measured, and how.
"""
