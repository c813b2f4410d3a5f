"""What is done to each adapter, and timed: W1 to W11."""
