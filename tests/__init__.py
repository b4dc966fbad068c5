"""The tests, a package of their own: some libraries install one of the same name, which processes that tests start
would find instead."""
