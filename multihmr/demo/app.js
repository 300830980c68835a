// Ties view3d.js to the page: gradio runs both together, with the names element, props and watch.
let shown = null;
function note(text) {  // in the place of the canvas; none shows the canvas again
  const [canvas, words] = [element.querySelector("canvas"), element.querySelector(".view3d p")];
  [canvas.hidden, element.querySelector(".view3d span").hidden, words.hidden, words.textContent] = [!!text, !!text, !text, text];
}
async function show() {
  const path = props.value, canvas = element.querySelector("canvas");
  element.querySelector(".view3d").hidden = !path;  // without people, advice is in its place
  if (shown === null || shown.canvas !== canvas) {
    shown = {canvas, view: multihmrView(canvas)};
    canvas.addEventListener("webglcontextlost", () => {  // as phones do with pages in the background
      canvas.replaceWith(canvas.cloneNode());
      show();
    });
  }
  if (!shown.view) return note("This browser shows no 3D. Download the GLB below and open it in another program.");
  if (!path) return shown.view.show(null);
  note("Loading 3D");
  let file = null;
  try {
    const answer = await fetch(`gradio_api/file=${path.split("/").map(encodeURIComponent).join("/")}`);
    if (answer.ok) file = await answer.arrayBuffer();
  } catch (error) { console.warn(error); }
  if (path !== props.value) return;  // another one was asked for meanwhile
  note(file ? "" : "The 3D people could not be loaded. Move “Least score” to try again.");
  if (file) shown.view.show(file);
  canvas.dataset.shown = file ? path : "";
}
watch("value", show);
if (props.value) show();
