package audit

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"
)

type schedule struct {
	generation string
	look       string // its score in the plan
	group      string
}

type versions struct {
	key         string
	generations []string
}

// readSchedule takes a key of schedules or calendars into the snapshot.
func (s *snapshot) readSchedule(ctx context.Context, rdb redis.UniversalClient, key, kind string, at jobAt) error {
	switch kind {
	case "s":
		record, err := rdb.HGetAll(ctx, key).Result()
		s.schedules[at] = schedule{record["g"], record["k"], record["gr"]}
		return err
	case "sv":
		generations, err := rdb.HKeys(ctx, key).Result()
		s.versions[at] = versions{key, generations}
		return err
	case "sg":
		members, err := rdb.SMembers(ctx, key).Result()
		s.groups[at] = members
		return err
	case "cal":
		names, err := rdb.HKeys(ctx, key).Result()
		for _, name := range names {
			s.calendars[jobAt{at.segment, name}] = true
		}
		return err
	}
	s.users[at] = key
	return nil
}

// auditSchedules: the plan and the schedules agree, and so do the groups. What is
// kept of a schedule that is gone passes; what is kept of one that is there does
// not, or its generations would begin anew.
func (s *snapshot) auditSchedules() {
	for at, look := range s.plan {
		if one, ok := s.schedules[at]; !ok || one.look != look {
			s.find("segment %d: schedule %s is planned for %s, it is to be looked at at %q", at.segment, at.id, look, one.look)
		}
	}
	for at, one := range s.schedules {
		if _, ok := s.plan[at]; one.look != "" && !ok {
			s.find("segment %d: schedule %s is to be looked at at %s and is not planned", at.segment, at.id, one.look)
		}
		if !slices.Contains(s.versions[at].generations, one.generation) {
			s.find("segment %d: generation %s of schedule %s is not among its versions", at.segment, one.generation, at.id)
		}
		if !slices.Contains(s.groups[jobAt{at.segment, ""}], at.id) {
			s.find("segment %d: schedule %s is not listed", at.segment, at.id)
		}
		if one.group != "" && !slices.Contains(s.groups[jobAt{at.segment, one.group}], at.id) {
			s.find("segment %d: group %s lacks its member %s", at.segment, one.group, at.id)
		}
	}
	for at, kept := range s.versions {
		if _, ok := s.schedules[at]; !ok {
			s.passes(kept.key)
		} else if s.ttl[kept.key] != -1 {
			s.find("%s: the schedule is there, and its versions pass", kept.key)
		}
	}
	for at, members := range s.groups {
		for _, name := range members {
			if one, ok := s.schedules[jobAt{at.segment, name}]; !ok || at.id != "" && one.group != at.id {
				s.find("segment %d: group %s names schedule %s, which is not in it", at.segment, at.id, name)
			}
		}
	}
	for at, key := range s.users {
		if !s.calendars[at] {
			s.find("%s: there is no such calendar", key)
		}
	}
	for at := range s.relay {
		s.left("segment %d: job %s of a schedule waits to be relayed", at.segment, at.id)
	}
}
