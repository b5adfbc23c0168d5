# Gone for good, not replaced by another version.
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null 2>&1; then
  systemctl --no-reload disable --now opencode-relay.socket opencode-relay.service >/dev/null 2>&1 || :
  systemctl stop 'opencode-relay@*.service' >/dev/null 2>&1 || :
  systemctl --no-reload disable opencode-relay@.service >/dev/null 2>&1 || :
fi
exit 0
