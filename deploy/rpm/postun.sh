if command -v systemctl >/dev/null 2>&1; then
  systemctl daemon-reload >/dev/null 2>&1 || :
  if [ "$1" -ge 1 ]; then
    # Not opencode-relay@.service: that would end an opencode in the middle of its work. It takes the new version with
    # its next restart.
    systemctl try-restart opencode-relay.service >/dev/null 2>&1 || :
  fi
fi
exit 0
