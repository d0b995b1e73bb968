const socket = new WebSocket(`ws://${location.host}/ws/members/`);
socket.onopen = () => socket.send(JSON.stringify("browser"));
socket.onmessage = (event) => { document.querySelector("#said").textContent = event.data; };
