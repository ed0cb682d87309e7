const pixel = "https://pixels.example.com/pixel.gif";

// Without a key nothing is counted, but the connection is open for what follows.
new Image().src = pixel;

// track counts a hit. The number makes each address another one, since a page
// loads the image of an address once.
function track(key) {
  new Image().src = pixel + "?key=" + encodeURIComponent(key) + "&" + Math.random();
}

// trackLeaving counts a hit while the page goes away, which may cancel an image.
function trackLeaving(key) {
  navigator.sendBeacon(pixel + "?key=" + encodeURIComponent(key));
}
