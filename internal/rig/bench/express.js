// A pixel as Express tutorials write it: a route for each id, a counter in memory,
// and an answer from a buffer.
const fs = require("fs");
const express = require("express");

const pixel = Buffer.from("R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs=", "base64");
const opened = {};

const app = express();
app.get("/:id", (req, res) => {
  opened[req.params.id] = (opened[req.params.id] || 0) + 1;
  res.set({ "Content-Type": "image/gif", "Content-Length": pixel.length, "Cache-Control": "no-store" });
  res.end(pixel);
});

const [port, key, cert] = process.argv.slice(2);
const server = key
  ? require("https").createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(cert) }, app)
  : require("http").createServer(app);
server.listen(port, "127.0.0.1");
