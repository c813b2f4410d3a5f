"""One module for each library: how a careful user would keep a journal with it. `benchmarks.ways` lists them."""
