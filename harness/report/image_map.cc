// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness/report/image_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "harness/report/html.h"
#include "oracle/xstate/image.h"

namespace fpswap::report {
namespace {

using judge::Place;
using xstate::Component;

constexpr int kX87 = 0, kSse = 1;
// The map's cell and how many are in a row.
constexpr uint32_t kCell = 8, kCellsInRow = 32, kPixels = 10;

// Regions are asked for from front to back; what is not asked for is nobody's.
class Regions {
 public:
  explicit Regions(size_t size) : size_(static_cast<uint32_t>(size)) {}

  void Add(uint64_t begin, uint64_t length, int component, int64_t standard) {
    if (begin < at_ || begin >= size_) return;
    Skip(static_cast<uint32_t>(begin));
    const auto end = static_cast<uint32_t>(std::min<uint64_t>(begin + length, size_));
    if (end > at_) list_.push_back({at_, end, component, standard});
    at_ = end;
  }
  std::vector<Region> Take() {
    Skip(size_);
    return std::move(list_);
  }

 private:
  void Skip(uint32_t to) {
    if (to > at_) list_.push_back({at_, to, -1, at_});
    at_ = to;
  }
  uint32_t size_, at_ = 0;
  std::vector<Region> list_;
};

void AddLegacy(Regions& regions) {
  regions.Add(0, 24, kX87, 0);
  regions.Add(24, 8, kSse, 24);
  regions.Add(32, 128, kX87, 32);
  regions.Add(160, 256, kSse, 160);
}

// struct kvm_fpu: the registers, the first 24 bytes of the legacy region, XMM, MXCSR.
void AddFpu(Regions& regions) {
  regions.Add(0, 128, kX87, 32);
  regions.Add(128, 24, kX87, 0);
  regions.Add(152, 256, kSse, 160);
  regions.Add(408, 4, kSse, 24);
}

void AddArea(std::span<const uint8_t> bytes, const xstate::XsaveCpuid& cpuid, Regions& regions) {
  AddLegacy(regions);
  const xstate::ImageView area(bytes);
  if (area.compacted()) {
    const uint64_t components = area.xcomp_bv() & ~xstate::kXcompBvCompacted;
    xstate::ForEachCompacted(cpuid, components, components,
                             [&](Component c, uint64_t at, uint64_t size) {
                               const auto& sub = cpuid.sub[static_cast<unsigned>(c)];
                               const int64_t home = sub.supervisor ? -1 : int64_t{sub.offset};
                               regions.Add(at, size, static_cast<int>(c), home);
                             });
    return;
  }
  // Standard offsets need not be in the components' order (SDM vol. 1, 13.4.3: PKRU before AMX).
  std::vector<std::pair<uint32_t, Component>> places;
  xstate::ForEachStandard(cpuid, cpuid.xcr0, [&](Component c, uint64_t at, uint64_t) {
    places.emplace_back(static_cast<uint32_t>(at), c);
  });
  std::ranges::sort(places);
  for (const auto& [at, c] : places) {
    regions.Add(at, cpuid.sub[static_cast<unsigned>(c)].size, static_cast<int>(c), at);
  }
}

// A register's name without its byte.
std::string RegisterName(const xstate::XsaveCpuid& cpuid, int64_t standard) {
  std::string text = xstate::NameOfByte(cpuid, static_cast<uint32_t>(standard)).text;
  const size_t byte = text.rfind(" byte ");
  if (byte != std::string::npos) text.resize(byte);
  return text;
}

const xstate::XsaveCpuid& LayoutOf(Place place, const trace::Platform& platform) {
  return place == Place::kImage ? platform.host.xsave : platform.guest.xsave;
}

// Bytes that differ, put together by the register they are of.
void FindDiffering(ImageMap& map, const trace::Platform& platform) {
  for (const Region& region : map.regions) {
    std::string last;
    for (uint32_t i = region.begin; i < region.end; ++i) {
      if (map.possible[i] == map.seen[i]) continue;
      ++map.bytes;
      map.bits += std::popcount(static_cast<uint8_t>(map.possible[i] ^ map.seen[i]));
      const bool named = region.standard >= 0 && map.place != Place::kStored &&
                         map.place != Place::kXcrs && map.place != Place::kMsr &&
                         map.place != Place::kCpuid && map.place != Place::kExit;
      std::string name =
          named ? RegisterName(LayoutOf(map.place, platform), region.standard + i - region.begin)
                : fmt::format("bytes from {}", i & ~15u);
      const bool goes_on = map.registers > 0 && name == last;
      if (!goes_on) {
        ++map.registers;
        last = name;
        if (map.registers > kMaxRegisters) continue;
        map.differing.push_back({.name = std::move(name), .begin = i, .possible = {}, .seen = {}});
      } else if (map.registers > kMaxRegisters) {
        continue;
      }
      DifferingRegister& at = map.differing.back();
      // What lies between two bytes that differ is shown as well.
      for (uint32_t k = at.begin + static_cast<uint32_t>(at.possible.size()); k <= i; ++k) {
        at.possible.push_back(map.possible[k]);
        at.seen.push_back(map.seen[k]);
      }
    }
  }
}

std::string ComponentTitle(int component) {
  if (component < 0) return "no component's";
  return std::string(xstate::RowOf(static_cast<Component>(component)).title);
}

// What a cell of the map is drawn as.
struct Cell {
  int component = -1;
  bool zero = true, differs = false;
  bool operator==(const Cell&) const = default;
};

Cell CellOf(const ImageMap& map, std::span<const uint8_t> bytes, uint32_t begin) {
  Cell cell;
  const auto region =
      std::ranges::upper_bound(map.regions, begin, {}, [](const Region& r) { return r.end; });
  if (region != map.regions.end()) cell.component = region->component;
  const size_t end = std::min<size_t>(begin + kCell, bytes.size());
  for (size_t i = begin; i < end; ++i) {
    cell.zero = cell.zero && bytes[i] == 0;
    cell.differs = cell.differs || map.possible[i] != map.seen[i];
  }
  return cell;
}

std::string CellsSvg(const ImageMap& map, std::span<const uint8_t> bytes, const char* title) {
  const auto cells = static_cast<uint32_t>((bytes.size() + kCell - 1) / kCell);
  const uint32_t in_row = std::min(cells, kCellsInRow);
  const uint32_t rows = (cells + kCellsInRow - 1) / kCellsInRow;
  std::string svg = fmt::format(
      "<svg class=\"map\" viewBox=\"-1 -1 {} {}\" style=\"width:{}px\" role=\"img\" "
      "aria-label=\"{}: {} bytes, {} of them differ\">",
      in_row * kPixels + 2, rows * kPixels + 2, in_row * kPixels + 2, title, bytes.size(),
      map.bytes);
  std::string marks;  // above the rest, so that no neighbour covers them
  for (uint32_t i = 0; i < cells;) {
    const Cell cell = CellOf(map, bytes, i * kCell);
    const uint32_t row_end = std::min(cells, (i / kCellsInRow + 1) * kCellsInRow);
    uint32_t end = i + 1;
    while (end < row_end && CellOf(map, bytes, end * kCell) == cell) ++end;
    const std::string place =
        fmt::format("x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"", i % kCellsInRow * kPixels,
                    i / kCellsInRow * kPixels, (end - i) * kPixels, kPixels);
    const std::string component =
        cell.component < 0 ? std::string("none") : std::to_string(cell.component);
    svg += fmt::format("<rect class=\"c{}{}\" {}><title>bytes {}-{}: {}{}</title></rect>",
                       component, cell.zero ? " z" : "", place, i * kCell,
                       std::min<size_t>(end * kCell, bytes.size()) - 1,
                       Html(ComponentTitle(cell.component)), cell.differs ? ", differ" : "");
    if (cell.differs) marks += fmt::format("<rect class=\"d\" {}/>", place);
    i = end;
  }
  return svg + marks + "</svg>";
}

std::string Legend(const ImageMap& map) {
  std::vector<int> components;
  for (const Region& region : map.regions) {
    if (std::ranges::find(components, region.component) == components.end()) {
      components.push_back(region.component);
    }
  }
  std::ranges::sort(components, {}, [](int c) { return c < 0 ? 1000 : c; });
  std::string html = "<ul class=\"legend\">";
  for (const int c : components) {
    html += fmt::format(
        "<li><svg class=\"key\" viewBox=\"0 0 10 10\" aria-hidden=\"true\"><rect "
        "class=\"c{}\" width=\"10\" height=\"10\"/></svg>{}</li>",
        c < 0 ? std::string("none") : std::to_string(c), Html(ComponentTitle(c)));
  }
  return html +
         "<li><svg class=\"key\" viewBox=\"0 0 10 10\" aria-hidden=\"true\"><rect class=\"d\" "
         "x=\"1\" y=\"1\" width=\"8\" height=\"8\"/></svg>differs</li>"
         "<li>pale: all zero</li></ul>";
}

// Every bit of a register, 8 bytes a row, bit 0 of the first byte leftmost: pale where it is 1 in
// both, marked where it differs.
std::string BitsSvg(const DifferingRegister& at) {
  constexpr size_t kInRow = 64, kBit = 5;
  const size_t bits = 8 * at.seen.size(), rows = (bits + kInRow - 1) / kInRow;
  std::string ones, differ;
  unsigned count = 0;
  for (size_t i = 0; i < bits; ++i) {
    const int possible = at.possible[i / 8] >> (i % 8) & 1, seen = at.seen[i / 8] >> (i % 8) & 1;
    if (possible == seen && seen == 0) continue;
    count += possible != seen;
    (possible != seen ? differ : ones) +=
        fmt::format("M{} {}h{}v{}h-{}z", i % kInRow * kBit, i / kInRow * kBit, kBit, kBit, kBit);
  }
  const size_t width = std::min(bits, kInRow) * kBit;
  return fmt::format(
      "<svg class=\"bitmap\" viewBox=\"0 0 {0} {1}\" style=\"width:{0}px\" role=\"img\" "
      "aria-label=\"{2} bits of {3} differ\"><rect width=\"{0}\" height=\"{1}\"/><path "
      "class=\"ones\" d=\"{4}\"/><path class=\"d\" d=\"{5}\"/></svg>",
      width, rows * kBit, count, Html(at.name), ones, differ);
}

std::string BytesHtml(std::span<const uint8_t> bytes, std::span<const uint8_t> other) {
  std::string html;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const bool differs = bytes[i] != other[i];
    html += fmt::format("{}{}{:02x}{}",
                        i == 0       ? ""
                        : i % 8 == 0 ? "<br>"
                                     : " ",
                        differs ? "<b>" : "", bytes[i], differs ? "</b>" : "");
  }
  return html;
}

std::string RegistersTable(const ImageMap& map) {
  std::string html =
      "<div class=\"scroll\" role=\"region\" aria-label=\"Registers that differ\" tabindex=\"0\">"
      "<table class=\"bits\"><thead><tr><th scope=\"col\">register</th><th scope=\"col\">from "
      "byte</th><th scope=\"col\">possible</th><th scope=\"col\">seen</th><th scope=\"col\">bits "
      "that differ</th></tr></thead><tbody>";
  for (const DifferingRegister& each : map.differing) {
    html += fmt::format(
        "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td><code>{}</code></td>"
        "<td><code>{}</code></td><td>{}</td></tr>",
        Html(each.name), each.begin, BytesHtml(each.possible, each.seen),
        BytesHtml(each.seen, each.possible), BitsSvg(each));
  }
  html += "</tbody></table></div>";
  if (map.registers > map.differing.size()) {
    html += fmt::format("<p>and {} more registers.</p>", map.registers - map.differing.size());
  }
  return html;
}

}  // namespace

std::string_view PlaceTitle(Place place) {
  switch (place) {
    case Place::kImage:
      return "XSAVE image in the standard format";
    case Place::kArea:
      return "XSAVE area in guest memory";
    case Place::kFxArea:
      return "FXSAVE area";
    case Place::kFpu:
      return "struct kvm_fpu";
    case Place::kStored:
      return "value stored";
    case Place::kXcrs:
      return "struct kvm_xcrs";
    case Place::kMsr:
      return "MSR";
    case Place::kCpuid:
      return "CPUID registers";
    case Place::kExit:
      return "data of the exit";
    case Place::kNone:
      break;
  }
  return "";
}

std::vector<Region> RegionsOf(Place place, std::span<const uint8_t> bytes,
                              const trace::Platform& platform) {
  Regions regions(bytes.size());
  switch (place) {
    case Place::kImage: {
      // The uABI image is standard whatever its header says.
      const std::vector<uint8_t> plain(std::min<size_t>(bytes.size(), xstate::kExtendedOffset));
      AddArea(plain, platform.host.xsave, regions);
      break;
    }
    case Place::kArea:
      AddArea(bytes, platform.guest.xsave, regions);
      break;
    case Place::kFxArea:
      AddLegacy(regions);
      break;
    case Place::kFpu:
      AddFpu(regions);
      break;
    default:
      break;
  }
  return regions.Take();
}

ImageMap MapOf(const judge::Compared& compared, const trace::Platform& platform) {
  ImageMap map{.place = compared.place,
               .regions = {},
               .possible = compared.possible,
               .seen = compared.seen,
               .differing = {}};
  const size_t size = std::min(map.possible.size(), map.seen.size());
  map.possible.resize(size);
  map.seen.resize(size);
  map.regions = RegionsOf(map.place, map.seen, platform);
  FindDiffering(map, platform);
  return map;
}

std::string ImageMapHtml(const ImageMap& map) {
  if (map.bytes == 0) return "";
  std::string html = fmt::format("<p>{}: {} bytes, of which {} in {} {} differ, {} {}.</p>",
                                 PlaceTitle(map.place), map.seen.size(), map.bytes, map.registers,
                                 map.registers == 1 ? "register" : "registers", map.bits,
                                 map.bits == 1 ? "bit" : "bits");
  // Of a value of a register or two the table says all.
  if (map.seen.size() > 64) {
    html += fmt::format(
        "<div class=\"maps\"><figure><figcaption>possible</figcaption>{}</figure><figure>"
        "<figcaption>seen</figcaption>{}</figure></div>{}<p class=\"note\">A cell is {} bytes, a "
        "row {}. Of bits, a row is "
        "8 bytes, bit 0 of the first on the left.</p>",
        CellsSvg(map, map.possible, "possible"), CellsSvg(map, map.seen, "seen"), Legend(map),
        kCell, kCell * kCellsInRow);
  }
  return html + RegistersTable(map);
}

}  // namespace fpswap::report
