// Flows alone: no editor, no admin interface, no port that is listened on, nothing told to anybody.
process.stdin.resume()
// The bench is gone, however it went.
process.stdin.on('end', () => process.exit(0))

module.exports = {
  flowFile: 'flows.json',
  httpAdminRoot: false,
  httpNodeRoot: false,
  disableEditor: true,
  uiHost: '127.0.0.1',
  credentialSecret: false,
  telemetry: { enabled: false, updateNotification: false },
  logging: { console: { level: 'error' } }
}
