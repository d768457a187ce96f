// Echo on Node.js: reads and writes as `net` gives them; a full socket pauses its reading.
const net = require('node:net');

const server = net.createServer({ noDelay: true }, (socket) => {
  socket.on('data', (bytes) => {
    if (!socket.write(bytes)) {
      socket.pause();
      socket.once('drain', () => socket.resume());
    }
  });
  socket.on('error', () => socket.destroy());
});
// The listener was made by the runner, with its options, and is descriptor 3.
server.listen({ fd: 3 });
