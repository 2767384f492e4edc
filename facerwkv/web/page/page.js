// The page: what the service is, tabs, mode, and where dropped and pasted files go.

import { againCamera, setUpCamera, stopCamera } from "./camera.js";
import { card } from "./card.js";
import { find, receiveFiles } from "./elements.js";
import { addImages, againImages, setUpImages } from "./images.js";
import { complain } from "./messages.js";
import { askJson } from "./service.js";
import { chooseVideo, remembered, resume, setUpVideo } from "./video.js";

const tabs = [...document.querySelectorAll('[role="tab"]')];

function openTab(chosen) {
  complain("");
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", String(tab === chosen));
    tab.tabIndex = tab === chosen ? 0 : -1;
    find(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  }
  find("no-face-choice").hidden = chosen.id === "tab-camera";
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
  for (const radio of radios.slice(1)) radio.disabled = !meta.modes.includes(radio.value);
  find("no-face").disabled = !meta.modes.includes("scene");
  for (const radio of radios) radio.addEventListener("change", () => (againImages(), againCamera()));
  find("no-face").addEventListener("change", againImages);
}

/** Files that were dropped or pasted go to their tab; of those without a known type the open tab decides. */
function take(files) {
  const isVideo = ({ type }) => type.startsWith("video/") || (!type && !find("video").hidden);
  const images = files.filter((file) => !isVideo(file));
  if (images.length) {
    openTab(find("tab-images"));
    addImages(images);
  } else if (files.length) {
    openTab(find("tab-video"));
    chooseVideo(files[0]);
  }
}

async function begin() {
  setUpTabs();
  document.querySelector('[href="#card"]').addEventListener("click", () => (find("card").open = true));
  try {
    const meta = await askJson("meta");
    const settings = {
      meta,
      get mode() { return document.querySelector('[name="mode"]:checked').value; },
      get onNoFace() { return find("no-face").checked ? "scene" : "empty"; },
    };
    setUpModel(meta);
    setUpImages(settings);
    setUpCamera(settings);
    setUpVideo(settings);
    receiveFiles(take);
    document.body.classList.add("ready");
    if (remembered()) {
      openTab(find("tab-video"));
      resume();
    }
  } catch (error) {
    complain(error.message);
  }
}

begin();
