# Neither in a container nor in an image under construction does a systemd have to run.
if command -v systemctl >/dev/null 2>&1; then
  systemctl daemon-reload >/dev/null 2>&1 || :
  if [ "$1" -eq 1 ]; then
    # What the distribution's or the administrator's presets say; usually nothing is switched on.
    systemctl --no-reload preset opencode-relay.service opencode-relay.socket >/dev/null 2>&1 || :
  fi
fi
exit 0
