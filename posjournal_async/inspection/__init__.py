"""A journal seen from outside: what it holds and what is wrong with it, without opening it for writing."""
