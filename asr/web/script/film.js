// The picture of a video, with the text as captions. It is silent, and follows the player.

const film = find('.film');
const FILM_LAG_SECONDS = 0.2;

function showFilm(sound) {
  URL.revokeObjectURL(film.src);
  film.hidden = true;
  film.removeAttribute('src');
  if (sound?.type.startsWith('video/')) film.src = URL.createObjectURL(sound);
}
film.addEventListener('loadedmetadata', () => (film.hidden = !film.videoWidth));

function follow(audio) {
  if (film.hidden) return;
  if (Math.abs(film.currentTime - audio.currentTime) > FILM_LAG_SECONDS) film.currentTime = audio.currentTime;
  film.playbackRate = audio.playbackRate;
  if (audio.paused && !film.paused) film.pause();
  if (!audio.paused && film.paused) film.play().catch(() => {}); // it has ended before the sound
}

async function captionFilm(transcript) {
  if (!film.hasAttribute('src')) return;
  film.querySelector('track').src = `data:text/vtt;base64,${await server.render({ transcript, format: 'vtt' })}`;
  film.textTracks[0].mode = 'showing';
}
