"""The tools of the tests: servers, proxies, workers, and what waits and looks from outside."""
