# The user has to be there before the first file; `--replace` looks at what the administrator has put in its place.
if command -v systemd-sysusers >/dev/null 2>&1; then
  systemd-sysusers --replace=/usr/lib/sysusers.d/opencode-relay.conf - <<'USERS' || :
u opencode-relay - "opencode-relay" /var/lib/opencode-relay -
USERS
elif command -v useradd >/dev/null 2>&1; then
  getent group opencode-relay >/dev/null || groupadd -r opencode-relay || :
  getent passwd opencode-relay >/dev/null ||
    useradd -r -g opencode-relay -d /var/lib/opencode-relay -s /sbin/nologin -c opencode-relay opencode-relay || :
fi
exit 0
