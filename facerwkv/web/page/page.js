// The page: what the service is, tabs, mode, and where dropped and pasted files go.

import { againCamera, setUpCamera, stopCamera } from "./camera.js";
import { card } from "./card.js";
import { find, receiveFiles } from "./elements.js";
import { addImages, againImages, setUpImages } from "./images.js";
import { complain } from "./messages.js";
import { askJson, patiently } from "./service.js";
import { chooseVideo, setUpVideo } from "./video.js";
import { remembered } from "./videos.js";

const tabs = [...document.querySelectorAll('[role="tab"]')];

function openTab(chosen) {
  complain("");
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", String(tab === chosen));
    tab.tabIndex = tab === chosen ? 0 : -1;
    find(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  }
  showLooks();
  if (chosen.id !== "tab-camera") stopCamera();
  if (chosen.id !== "tab-video") find("video-player").pause();
}

function setUpTabs() {
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => openTab(tab));
    tab.addEventListener("keydown", (event) => {
      const goal = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: -1 }[event.key];
      if (goal === undefined) return;
      event.preventDefault();
      const next = tabs.at(goal % tabs.length);
      openTab(next);
      next.focus();
    });
  });
}

function setUpModel(meta) {
  find("model-name").textContent = meta.name;
  find("model-licence").textContent = (meta.licence ?? "no licence stated").split(":")[0];
  find("model-licence").title = meta.notice ?? "";
  find("version").textContent = `FaceRWKV ${meta.version}`;
  find("card-body").append(...card(meta));
  const radios = [...document.querySelectorAll('[name="mode"]')];
  radios[0].nextElementSibling.title = `The model was trained on ${meta.mode === "face" ? "faces" : "whole images"}`;
  find("mode").hidden = meta.modes.length < 2;
  for (const radio of radios) radio.addEventListener("change", () => (showLooks(), againImages(), againCamera()));
  find("no-face").addEventListener("change", againImages);
  find("threshold").addEventListener("change", againImages);
}

/** A choice without an effect is not shown: what to do without a face, where none is looked for or nothing waits for it. */
function showLooks() {
  const { meta, mode } = settings;
  const looksAtFaces = (mode === "auto" ? meta.mode : mode) === "face";
  find("no-face-choice").hidden = !find("camera").hidden || !looksAtFaces || !meta.modes.includes("scene");
}

/** Files that were dropped or pasted go to their tab; of those that may be either the open tab decides. */
function take(files) {
  const either = ["", "image/gif", "image/webp"];
  const isVideo = ({ type }) => type.startsWith("video/") || (either.includes(type) && !find("video").hidden);
  if (files.length === 0) return;
  const videos = files.every(isVideo);
  openTab(find(videos ? "tab-video" : "tab-images"));
  (videos ? chooseVideo : addImages)(files);
}

const settings = {
  meta: null,
  get mode() { return document.querySelector('[name="mode"]:checked').value; },
  get onNoFace() { return find("no-face").checked ? "scene" : "empty"; },
  /** A probability, or "" for none. */
  get threshold() { return find("threshold").value && find("threshold").value / 100; },
};

async function begin() {
  document.body.classList.add("started"); // the sentence about a missing script goes
  document.querySelector('[href="#card"]').addEventListener("click", () => (find("card").open = true));
  try {
    settings.meta = await patiently(() => askJson("meta"), { onWait: (error) => complain(error.message) });
    complain("");
    setUpTabs();
    setUpModel(settings.meta);
    setUpImages(settings);
    setUpCamera(settings);
    setUpVideo(settings);
    openTab(find(remembered() ? "tab-video" : "tab-images"));
    receiveFiles(take);
    document.body.classList.add("ready");
  } catch (error) {
    complain(error.message);
  }
}

begin();
