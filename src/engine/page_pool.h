#pragma once
// Which pages of the KV cache are free, held or worth keeping.
#include <array>
#include <compare>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::engine {

inline constexpr int kPageTokens = 16;

[[nodiscard]] constexpr int pages_for(int tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

// Hands out pages and shares full ones between sequences that begin alike. Keys and values of a position depend on the tokens up to it alone, so a
// page is named by its 16 tokens, the page before it, and the salt of who computed it: who has another salt never sees it, nor how fast it was found
// (vLLM's automatic prefix caching). Names are compared in full: no two texts can be taken for each other.
// A page that nobody holds keeps what it has until it is handed out anew, the one that was let go first, first.
//
// Threads: one.
class PagePool {
 public:
  explicit PagePool(int num_pages);

  [[nodiscard]] int num_pages() const { return static_cast<int>(pages_.size()); }
  // That can be handed out: those that nobody holds.
  [[nodiscard]] int available() const { return static_cast<int>(free_.size()); }

  // A page for one holder; nullopt when all are held.
  [[nodiscard]] std::optional<int32_t> allocate();
  // One holder less. REQUIRES: it is held. Of a sequence, the last page first: beginnings stay longest.
  void release(int32_t page);

  // A text up to the end of a page; 0 = its beginning. Names a text as long as this process runs.
  using Prefix = uint64_t;
  struct Shared {
    int32_t page = 0;
    Prefix prefix = 0;  // with this page
  };
  // The page with these kPageTokens tokens after `prefix`, which now has a holder more; nullopt: there is none.
  [[nodiscard]] std::optional<Shared> find(std::string_view salt, Prefix prefix, std::span<const int32_t> tokens);
  // `page`, which is held and full, may be found from now on, unless another one with its name can be. The prefix with it.
  Prefix publish(int32_t page, std::string_view salt, Prefix prefix, std::span<const int32_t> tokens);

 private:
  struct Name {
    Prefix prefix = 0;
    std::array<int32_t, kPageTokens> tokens{};
    std::string salt;  // of a first page; the others have it by their prefix
    auto operator<=>(const Name&) const = default;
  };
  using Published = std::map<Name, Shared>;
  struct Page {
    int holders = 0;
    std::list<int32_t>::iterator place = {};              // in free_, without holders
    std::optional<Published::iterator> published = {};
  };
  [[nodiscard]] static Name name_of(std::string_view salt, Prefix prefix, std::span<const int32_t> tokens);

  std::vector<Page> pages_;
  std::list<int32_t> free_;  // the next one to hand out first
  Published published_;
  Prefix last_prefix_ = 0;
};

}  // namespace penstock::engine
