# systemd: only that it is there to be inherited.
